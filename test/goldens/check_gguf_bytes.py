"""Compares every quantized tensor of a component folder that halftone wrote with ggml's own bytes.

    halftone quantize models/demo out --quantize gguf:Q4_K
    python check_gguf_bytes.py GGML models/demo/transformer out/transformer

GGML is the folder that make_gguf_goldens.py takes.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from make_gguf_goldens import TYPES, Ggml, compile_ggml
from safetensors.torch import load_file


def main() -> None:
    ggml = Ggml(compile_ggml(Path(sys.argv[1])))
    dense = {}
    for path in Path(sys.argv[2]).glob("*.safetensors"):
        dense |= load_file(path)
    counts: dict[str, list[int]] = {}
    for path in Path(sys.argv[3]).glob("*.gguf"):
        for tensor in gguf.GGUFReader(path).tensors:
            kind = tensor.tensor_type.name
            if kind not in TYPES:
                continue
            values = np.ascontiguousarray(dense[tensor.name].to(torch.float32).numpy()).reshape(-1)
            count = counts.setdefault(kind, [0, 0])
            count[0] += ggml.quantize(kind, values) == tensor.data.tobytes()
            count[1] += 1
    for kind, (equal, total) in counts.items():
        print(f"{kind}: {equal} of {total} tensors have ggml's bytes")


if __name__ == "__main__":
    main()
