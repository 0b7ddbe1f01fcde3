"""Two tables about GGUF: whether halftone's bytes are ggml's, and whether a file survives a way through both.

    python check_gguf_bytes.py GGML [DENO]

GGML is the folder that make_gguf_goldens.py takes, whose C code is compiled; DENO is how to start Deno. For each type:

- cells: tensors of several kinds, in float32 and in bfloat16, quantized by `halftone quantize` and by ggml. Equal is what
  has the same bytes;
- demo: the same for every weight of the demo model that is quantized;
- round trip: gguf-py writes the demo transformer with ggml's blocks, halftone opens that and saves it (resave_gguf.ts),
  gguf-py reads that. Equal is what has the same name, type, shape and bytes.

The exit code is 1 unless everything is equal.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from make_gguf_goldens import TYPES, Ggml, compile_ggml, inputs
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DEMO = ROOT / "models/demo"
CELLS = {
    "normal": "normal", "heavy": "heavy-tailed", "constant": "constant", "zero": "zero", "tiny": "tiny",
    "large": "large", "positive": "one-sided", "mixed": "outliers", "powers": "powers of 2",
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Halftone:
    def __init__(self, deno: str):
        self.deno = deno

    def run(self, script: str, *words: object) -> None:
        command = [self.deno, "run", "-A", "--no-check", str(ROOT / script), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)

    def quantize(self, source: Path, destination: Path, kind: str) -> None:
        self.run("cli/main.ts", "quantize", source, destination, "--quantize", f"gguf:{kind}")


def write_cells(path: Path) -> None:
    """A file of a transformer, as far as its first name tells; the others are as good as any."""
    tensors = {"img_in.weight": torch.zeros(2, 2)}
    for name, values in inputs().items():
        for dtype, kind in DTYPES.items():
            if name in CELLS:
                tensors[f"{name}.{dtype}.weight"] = torch.from_numpy(values).reshape(8, 512).to(kind).contiguous()
    save_file(tensors, path)


def read(path: Path) -> list[gguf.ReaderTensor]:
    return gguf.GGUFReader(path).tensors


def compare(ggml: Ggml, kind: str, written: Path, dense: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Whether each quantized tensor has ggml's bytes."""
    equal = {}
    for tensor in read(written):
        if tensor.tensor_type.name in TYPES:
            values = np.ascontiguousarray(dense[tensor.name].float().numpy()).reshape(-1)
            equal[tensor.name] = ggml.quantize(tensor.tensor_type.name, values) == tensor.data.tobytes()
    return equal


def quantize_and_compare(halftone: Halftone, ggml: Ggml, kind: str, source: Path, work: Path) -> dict[str, bool]:
    """`source` is a safetensors file or the folder of a component."""
    written = work / (f"{source.stem}.gguf" if source.is_file() else f"{source.name}-{kind}")
    halftone.quantize(source, written, kind)
    file = written if written.is_file() else next(written.glob("*.gguf"))
    files = [source] if source.is_file() else list(source.glob("*.safetensors"))
    dense = {name: tensor for path in files for name, tensor in load_file(path).items()}
    return compare(ggml, kind, file, dense)


def round_trip(halftone: Halftone, kind: str, work: Path) -> tuple[int, int]:
    first, second, third = (work / f"{name}.gguf" for name in ("halftone", "python", "again"))
    halftone.quantize(DEMO / "transformer", first, kind)
    writer = gguf.GGUFWriter(second, "flux")
    for tensor in read(first):
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    halftone.run("test/goldens/resave_gguf.ts", second, third, DEMO / "transformer")

    def contents(path: Path) -> dict:
        return {t.name: (t.tensor_type, tuple(t.shape), t.data.tobytes()) for t in read(path)}

    before, after = contents(second), contents(third)
    return sum(after.get(name) == tensor for name, tensor in before.items()), max(len(before), len(after))


def main() -> None:
    ggml = Ggml(compile_ggml(Path(sys.argv[1])))
    halftone = Halftone(sys.argv[2] if len(sys.argv) > 2 else "deno")
    work = Path(tempfile.mkdtemp())
    write_cells(work / "cells.safetensors")
    columns = [f"{title} {dtype}" for title in CELLS.values() for dtype in DTYPES] + ["demo", "round trip"]
    print("| type | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    total = [0, 0]
    for kind in TYPES:
        cells = quantize_and_compare(halftone, ggml, kind, work / "cells.safetensors", work)
        row = [(int(cells[f"{name}.{dtype}.weight"]), 1) for name in CELLS for dtype in DTYPES]
        demo = [
            equal for component in ("transformer", "text_encoder_2")
            for equal in quantize_and_compare(halftone, ggml, kind, DEMO / component, work).values()
        ]
        row += [(sum(demo), len(demo)), round_trip(halftone, kind, work)]
        print(f"| {kind} | " + " | ".join(f"{equal} of {of}" for equal, of in row) + " |", flush=True)
        total = [total[0] + sum(equal for equal, _ in row), total[1] + sum(of for _, of in row)]
    print(f"{total[0]} of {total[1]} equal")
    sys.exit(total[0] != total[1])


if __name__ == "__main__":
    main()
