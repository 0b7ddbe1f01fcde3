"""The tensors that the goldens of torchao, Quanto and ModelOpt are made from, stored as quantizer_inputs.safetensors.

Two groups of 128 per row (and whole blocks of 16, 32 and 64), and one matrix of 64 columns as Flux's x_embedder has.
Zero rows and constant rows are cases of their own, because the libraries divide by their range.
"""

import os

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs():
    heavy = drawn(2, 8, 256) / drawn(3, 8, 256).abs().clamp(min=0.01)
    constant = torch.full((8, 256), 0.3)
    constant[4:] = -1.7
    mixed = drawn(4, 8, 256) * torch.logspace(-3, 2, 8)[:, None]
    mixed[3, :128] = 0.25
    positive = drawn(5, 8, 256).abs() + 0.5
    spread = torch.cat([drawn(6, 4, 256) * 1e-3, drawn(7, 4, 256) * 300])
    return {
        "normal": drawn(1, 8, 256), "heavy": heavy, "constant": constant, "mixed": mixed, "positive": positive,
        "spread": spread, "tiny": drawn(8, 8, 256) * 1e-6, "zeros": torch.zeros(8, 256), "narrow": drawn(9, 16, 64),
        "weights": drawn(10, 32, 128) * 0.02,
    }


def typed_inputs():
    """name.dtype -> tensor"""
    return {f"{name}.{dtype}": values.to(kind) for name, values in inputs().items() for dtype, kind in DTYPES.items()}


if __name__ == "__main__":
    save_file(typed_inputs(), f"{HERE}/quantizer_inputs.safetensors")
