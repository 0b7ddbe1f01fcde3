"""gguf/t5_mixes.json: the type that llama.cpp's quantize gives each tensor of a T5 encoder, by its own code.

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz
    python make_t5_mix_goldens.py llama_cpp_python-0.3.36/vendor/llama.cpp

llama_mixes.cpp includes llama-quant.cpp and is linked without the rest of the library, which is never called.
A record is a mix, a number of layers and of columns; `types` has per part of a block the types by layer, or one type
when all layers have the same.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# LLAMA_FTYPE_MOSTLY_...
FILE_TYPES = {
    "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13,
    "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30,
}
PARTS = ("attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down")
LAYERS = (2, 12, 24)
COLUMNS = (512, 96, 40)  # whole blocks of 256, of 32, none


def compile_mixes(llama: Path) -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "ggml-version.h").write_text('#define GGML_VERSION ""\n#define GGML_COMMIT ""\n')
    include = [f"-I{llama / part}" for part in ("include", "src", "ggml/include", "ggml/src")] + [f"-I{folder}"]
    sources = [HERE / "llama_mixes.cpp"] + [llama / "src" / f"llama-{part}.cpp" for part in ("arch", "hparams", "impl")]
    subprocess.run(["gcc", "-w", *include, "-c", llama / "ggml/src/ggml.c", "-o", folder / "ggml.o"], check=True)
    subprocess.run(
        ["g++", "-std=c++17", "-w", "-no-pie", "-static", *include, *sources, folder / "ggml.o", "-o", folder / "mixes",
         "-Wl,--unresolved-symbols=ignore-all", "-lpthread", "-lm"],
        check=True,
    )
    return folder / "mixes"


def record(program: Path, mix: str, layers: int, columns: int) -> dict:
    names = ["token_embd.weight", "enc.output_norm.weight", "enc.blk.0.attn_rel_b.weight"]
    names += [f"enc.blk.{i}.{part}.weight" for i in range(layers) for part in PARTS]
    lines = "".join(f"{name} {columns} {1 if 'norm' in name else 64}\n" for name in names)
    command = [str(program), str(FILE_TYPES[mix]), str(layers)]
    output = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    found = dict(line.split() for line in output.splitlines())
    assert found["enc.output_norm.weight"] == found["enc.blk.0.attn_rel_b.weight"] == "f32"
    types = {"token_embd": found["token_embd.weight"].upper()}
    for part in PARTS:
        by_layer = [found[f"enc.blk.{i}.{part}.weight"].upper() for i in range(layers)]
        types[part] = by_layer[0] if len(set(by_layer)) == 1 else by_layer
    return {"mix": mix, "layers": layers, "columns": columns, "types": types}


def main() -> None:
    program = compile_mixes(Path(sys.argv[1]))
    records = [record(program, mix, layers, columns) for mix in FILE_TYPES for layers in LAYERS for columns in COLUMNS]
    lines = ",\n".join("  " + json.dumps(record) for record in records)
    (HERE / "gguf" / "t5_mixes.json").write_text(f"[\n{lines}\n]\n")
    print(len(records), "records")


if __name__ == "__main__":
    main()
