"""Write safetensors/*.safetensors with the Python library, and what is in them.

    python test/goldens/make_safetensors_goldens.py

Tensor data is bytes 0, 1, 2, ... (modulo 251), except for bool, so that tests can repeat it.
"""

import hashlib
import json
import pathlib

import numpy
import torch
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).with_name("safetensors")
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint64": torch.uint64,
    "uint32": torch.uint32,
    "uint16": torch.uint16,
    "uint8": torch.uint8,
}
NAMES = ["a", "b.weight", "A", "12", "3", "", "é", "😀", "～", 'quote"back\\slash', "line\nend\t\x01"]


def filled(dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    size = int(numpy.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    data = torch.from_numpy((numpy.arange(size) % 251).astype(numpy.uint8))
    return data.view(dtype).reshape(shape) if size > 0 else torch.empty(shape, dtype=dtype)


def all_dtypes() -> dict[str, torch.Tensor]:
    tensors = {f"tensor.{name}": filled(dtype, [2, 3]) for name, dtype in DTYPES.items()}
    return tensors | {"tensor.bool": torch.tensor([True, False, True])}


def odd_names() -> dict[str, torch.Tensor]:
    return {name: filled(torch.float32, [i % 3]) for i, name in enumerate(NAMES)}


def odd_shapes() -> dict[str, torch.Tensor]:
    shapes = [[], [0], [0, 4], [4, 0], [1, 1, 1, 1, 1, 1, 1, 1], [5], [2, 3, 4]]
    return {f"shape{i}": filled(torch.bfloat16, shape) for i, shape in enumerate(shapes)}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    files = {
        "all_dtypes": (all_dtypes(), {"format": "pt"}),
        "odd_names": (odd_names(), {"format": "pt"}),
        "odd_shapes": (odd_shapes(), None),
        "odd_metadata": ({}, {"note": 'a "quoted" é\n'}),
    }
    contents = {}
    for name, (tensors, metadata) in files.items():
        path = FOLDER / f"{name}.safetensors"
        save_file(tensors, path, metadata=metadata)
        contents[name] = {
            "metadata": metadata or {},
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "tensors": [
                [key, str(value.dtype).removeprefix("torch."), list(value.shape)]
                for key, value in tensors.items()
            ],
        }
    (FOLDER / "contents.json").write_text(json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
