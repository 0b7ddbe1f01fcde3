"""Write dtype_goldens.json: what PyTorch's casts give, as SHA-256 of the bytes.

    python test/goldens/make_dtype_goldens.py

Inputs are given by rules that the tests repeat, so that only hashes need to be stored:
- decode: every code of the type, in order, to float32;
- encode: the float32 bit patterns `i * 65536 + tail` for i in 0..65535 and each tail below (NaNs left
  out: their payload differs between PyTorch's own code paths), then every midpoint between two
  neighbouring codes with its two float32 neighbours, both signs.
"""

import hashlib
import json
import pathlib

import numpy
import torch

TAILS = [0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
SMALL = {
    "float16": (torch.float16, torch.int16, 16),
    "bfloat16": (torch.bfloat16, torch.int16, 16),
    "float8_e4m3fn": (torch.float8_e4m3fn, torch.uint8, 8),
    "float8_e5m2": (torch.float8_e5m2, torch.uint8, 8),
}


def sha256(array: numpy.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def all_codes(bits: int) -> torch.Tensor:
    kind = numpy.uint8 if bits == 8 else numpy.uint16
    codes = numpy.arange(2**bits, dtype=kind)
    return torch.from_numpy(codes if bits == 8 else codes.view(numpy.int16))


def decode(name: str) -> torch.Tensor:
    dtype, _, bits = SMALL[name]
    return all_codes(bits).view(dtype).to(torch.float32)


def grid() -> torch.Tensor:
    words = numpy.concatenate(
        [numpy.arange(65536, dtype=numpy.uint32) * 65536 + tail for tail in TAILS]
    )
    values = words.view(numpy.float32)
    return torch.from_numpy(values[~numpy.isnan(values)])


def midpoints(name: str) -> torch.Tensor:
    values = decode(name).numpy()
    values = numpy.unique(values[numpy.isfinite(values) & (values >= 0)]).astype(numpy.float64)
    middle = ((values[:-1] + values[1:]) / 2).astype(numpy.float32)
    words = middle.view(numpy.uint32)
    around = numpy.concatenate([words - 1, words, words + 1]).view(numpy.float32)
    both = numpy.concatenate([around, -around])
    return torch.from_numpy(both[~numpy.isnan(both)])


def encode(name: str, values: torch.Tensor) -> str:
    dtype, carrier, _ = SMALL[name]
    return sha256(values.to(dtype).view(carrier).numpy())


def integers() -> dict:
    generator = numpy.random.default_rng(0)
    wide = generator.integers(-(2**63), 2**63 - 1, size=64, dtype=numpy.int64)
    ties = numpy.array(
        [2**61 + 2**37, 2**61 + 2**37 + 1, 2**61 + 3 * 2**37, -(2**61) - 2**37 - 1, 2**53 + 1, -1],
        dtype=numpy.int64,
    )
    values = numpy.concatenate([wide >> shift for shift in (0, 5, 9, 20, 40)] + [ties])
    return {
        "values": [str(value) for value in values],
        "float32_bits": torch.from_numpy(values).float().view(torch.int32).tolist(),
    }


def main() -> None:
    goldens = {
        "torch": torch.__version__.split("+")[0],
        "tails": TAILS,
        "decode": {name: sha256(decode(name).numpy()) for name in SMALL},
        "encode_grid": {name: encode(name, grid()) for name in SMALL},
        "encode_midpoints": {name: encode(name, midpoints(name)) for name in SMALL},
        "int64": integers(),
    }
    path = pathlib.Path(__file__).with_name("dtype_goldens.json")
    path.write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
