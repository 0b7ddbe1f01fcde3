"""GGUF goldens: gguf/blocks.json (bytes and values by ggml's C code), gguf/container.gguf (by gguf-py) and
gguf/single_file.json (names by Diffusers' converter).

    pip install gguf==0.19.0 numpy==2.4.6
    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36    # for vendor/llama.cpp/ggml
    tar xzf llama_cpp_python-0.3.36.tar.gz
    python make_gguf_goldens.py llama_cpp_python-0.3.36/vendor/llama.cpp/ggml

ggml-quants.c alone is compiled into a shared library in a temporary folder, with -ffp-contract=off. A plain -O2
build for x86-64 has no fused multiply-add and gives the same bytes; one with -march=native on a processor with FMA
contracts products and sums and then differs in some codes of Q2_K, Q4_K, Q5_K, Q6_K and IQ4_NL.

Every record of blocks.json is a type and an input: `bytes` is the SHA-256 of what ggml_quantize_chunk writes
(quantize_TYPE without an importance matrix), `values` that of dequantize_row_TYPE in float32, little-endian. Inputs are
made by recipes that test/quantization/gguf_recipes.ts repeats exactly; `blocks` inputs are bytes to decode.
"""

import ctypes
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize

HERE = Path(__file__).parent
COUNT = 4096
# Name, elements and bytes of a block.
TYPES = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "MXFP4": (32, 17), "NVFP4": (64, 36),
}
STUBS = """
#include <stdlib.h>
#include <stddef.h>
#include <stdint.h>
void ggml_abort(const char * f, int l, const char * m, ...) { abort(); }
size_t ggml_row_size(int t, int64_t n) { return 0; } /* only for the result, which is not used */
size_t ggml_type_size(int t) { abort(); }
const char * ggml_type_name(int t) { return ""; }
"""


def compile_ggml(ggml: Path) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp())
    (folder / "stubs.c").write_text(STUBS)
    library = folder / "libquants.so"
    subprocess.run(
        ["gcc", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-DNDEBUG", "-w"]
        + [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")]
        + [str(ggml / "src/ggml-quants.c"), str(folder / "stubs.c"), "-o", str(library), "-lm"],
        check=True,
    )
    return ctypes.CDLL(str(library))


def symbol(kind: str) -> str:
    return kind.lower().replace("_k", "_K")


class Ggml:
    def __init__(self, library: ctypes.CDLL):
        self.library = library

    def quantize(self, kind: str, values: np.ndarray) -> bytes:
        elements, size = TYPES[kind]
        # Q4_0 and its like are row functions of the same result; quantize_* takes rows and a matrix of importance.
        function = getattr(self.library, f"quantize_{symbol(kind)}")
        function.restype = ctypes.c_size_t
        out = np.zeros(values.size // elements * size, np.uint8)
        function(values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
                 ctypes.c_int64(1), ctypes.c_int64(values.size), None)
        return out.tobytes()

    def dequantize(self, kind: str, blocks: bytes) -> np.ndarray:
        elements, size = TYPES[kind]
        out = np.zeros(len(blocks) // size * elements, np.float32)
        getattr(self.library, f"dequantize_row_{symbol(kind)}")(
            ctypes.c_char_p(blocks), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(out.size))
        return out


def words(seed: int, count: int) -> np.ndarray:
    """A linear congruential generator's upper 24 bits."""
    state, result = seed, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        result.append(state >> 8)
    return np.array(result)


def normal(seed: int, count: int = COUNT) -> np.ndarray:
    """Sums of 12 uniform numbers, minus 6: exact in double."""
    uniform = words(seed, 12 * count).reshape(count, 12) / 2**24
    return uniform.sum(axis=1) - 6.0


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def inputs() -> dict[str, np.ndarray]:
    i = np.arange(COUNT)
    periodic = ((37 * i) % 101 - 50) / 50 * (0.5 + 0.5 * ((i // 32) % 3))
    mixed = normal(7) * np.where(i // 32 % 5 == 0, 0.0, np.where(i % 97 == 0, 50.0, 1.0))
    cubes = normal(3)
    recipes = {
        "periodic": periodic,
        "normal": normal(1),
        "weights": normal(2) * 0.02,
        "heavy": cubes * cubes * cubes,
        "mixed": mixed,
        "positive": np.abs(normal(4)),
        "negative": -np.abs(normal(5)) - 1.0,
        "constant": np.full(COUNT, 0.375),
        "minus": np.full(COUNT, -0.3),
        "zero": np.zeros(COUNT),
        "tiny": normal(6) * 2.0**-20,
        "vanishing": normal(8) * 2.0**-70,
        "large": normal(9) * 1000.0,
        "powers": (1.0 - (i % 3) / 2**24) * 2.0 ** ((i // 32) % 64 - 60),
    }
    result = {name: values.astype(np.float32) for name, values in recipes.items()}
    result["bfloat16"] = to_bfloat16(normal(10) * 0.05)
    return result


def random_blocks(kind: str) -> bytes:
    """Random bytes; the float16 scales become finite by clearing an exponent bit."""
    _, size = TYPES[kind]
    blocks = (words(sum(kind.encode()), 64 * size) & 255).astype(np.uint8).reshape(64, size)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2),
              "Q4_K": (0, 2), "Q5_K": (0, 2), "MXFP4": (), "NVFP4": ()}.get(kind, (0,))
    for at in scales:
        blocks[:, at + 1] &= 0xBF
    return blocks.tobytes()


def sha256(data) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()


def block_records(ggml: Ggml) -> list[dict]:
    records = []
    for kind in TYPES:
        blocks = {name: ggml.quantize(kind, values) for name, values in inputs().items()}
        blocks["blocks"] = random_blocks(kind)
        for name, data in blocks.items():
            values = ggml.dequantize(kind, data)
            python = dequantize(np.frombuffer(data, np.uint8), gguf.GGMLQuantizationType[kind]).reshape(-1) \
                if hasattr(gguf.GGMLQuantizationType, kind) else values
            same = np.array_equal(values.view(np.uint32), python.astype(np.float32).view(np.uint32))
            if not same:
                worst = np.abs(values - python).max()
                print(f"gguf-py reads {kind} of {name} differently, by {worst} at most")
            records.append({"type": kind, "input": name, "bytes": sha256(data), "values": sha256(values)})
    return records


def container(ggml: Ggml, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_quantization_version(2)
    writer.add_uint8("values.uint8", 200)
    writer.add_int8("values.int8", -100)
    writer.add_uint16("values.uint16", 60000)
    writer.add_int16("values.int16", -30000)
    writer.add_uint32("values.uint32", 4000000000)
    writer.add_int32("values.int32", -2000000000)
    writer.add_float32("values.float32", 0.1)
    writer.add_uint64("values.uint64", 2**63 + 1)
    writer.add_int64("values.int64", -2**62 - 1)
    writer.add_float64("values.float64", 0.1)
    writer.add_bool("values.bool", True)
    writer.add_string("values.string", "Übung: 半")
    writer.add_array("values.strings", ["a", "", "ü"])
    writer.add_array("values.numbers", [1, -2, 3])
    values = normal(11, 512).astype(np.float32)
    writer.add_tensor("plain.f32", values[:6].reshape(2, 3))
    writer.add_tensor("plain.f16", values[:6].astype(np.float16).reshape(3, 2))
    writer.add_tensor("vector", values[:5])
    for kind in ("Q4_0", "Q8_0", "Q4_K"):
        data = np.frombuffer(ggml.quantize(kind, values), np.uint8).reshape(2, -1)
        writer.add_tensor(f"blocks.{kind}", data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


WIDTH = 8


def single_file_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a small Flux under Black Forest Labs' names, of width 8 with two blocks of each kind."""
    w = WIDTH
    modules = {
        "img_in": (w, 4), "txt_in": (w, 6), "time_in.in_layer": (w, 16), "time_in.out_layer": (w, w),
        "vector_in.in_layer": (w, 5), "vector_in.out_layer": (w, w),
        "guidance_in.in_layer": (w, 16), "guidance_in.out_layer": (w, w),
        "final_layer.linear": (4, w), "final_layer.adaLN_modulation.1": (2 * w, w),
    }
    norms = []
    for i in range(2):
        for kind in ("img", "txt"):
            block = f"double_blocks.{i}.{kind}"
            modules |= {f"{block}_mod.lin": (6 * w, w), f"{block}_attn.qkv": (3 * w, w),
                        f"{block}_attn.proj": (w, w), f"{block}_mlp.0": (4 * w, w), f"{block}_mlp.2": (w, 4 * w)}
            norms += [f"{block}_attn.norm.{part}_norm.scale" for part in ("query", "key")]
        block = f"single_blocks.{i}"
        modules |= {f"{block}.modulation.lin": (3 * w, w), f"{block}.linear1": (7 * w, w), f"{block}.linear2": (w, 5 * w)}
        norms += [f"{block}.norm.{part}_norm.scale" for part in ("query", "key")]
    shapes = {f"{name}.weight": shape for name, shape in modules.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in modules.items()}
    return shapes | {name: (4,) for name in norms}


def single_file_record() -> dict:
    """What Diffusers' converter makes of them. Tensor k holds 1000 k, 1000 k + 1 ... in float32."""
    import inspect

    import torch
    from diffusers.loaders import single_file_utils

    # The converter has FLUX.1's width built in; put in this one.
    name = "convert_flux_transformer_checkpoint_to_diffusers"
    exec(inspect.getsource(getattr(single_file_utils, name)).replace("3072", str(WIDTH)), single_file_utils.__dict__)
    shapes = single_file_shapes()
    tensors = {
        key: torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape) + 1000 * k
        for k, (key, shape) in enumerate(shapes.items())
    }
    converted = single_file_utils.__dict__[name](dict(tensors))
    return {
        "single": shapes,
        "diffusers": {
            key: {"shape": list(value.shape), "sha256": sha256(value.contiguous().numpy())}
            for key, value in sorted(converted.items())
        },
    }


def main() -> None:
    ggml = Ggml(compile_ggml(Path(sys.argv[1])))
    folder = HERE / "gguf"
    folder.mkdir(exist_ok=True)
    records = block_records(ggml)
    lines = ",\n".join("  " + json.dumps(record) for record in records)
    (folder / "blocks.json").write_text(f"[\n{lines}\n]\n")
    container(ggml, folder / "container.gguf")
    (folder / "single_file.json").write_text(json.dumps(single_file_record(), indent=1) + "\n")
    print(len(records), "records")


if __name__ == "__main__":
    main()
