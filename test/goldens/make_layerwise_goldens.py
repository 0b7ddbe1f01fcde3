"""Goldens of FP8 layerwise casting: python make_layerwise_goldens.py writes layerwise.json.

Hashes (their first 24 digits) of quantizer_inputs cast by PyTorch, and of the tensors that Diffusers saves of a tiny
transformer after enable_layerwise_casting.
"""

import hashlib
import json
import tempfile

import torch
from diffusers import FluxTransformer2DModel
from quantizer_inputs import HERE, typed_inputs
from safetensors import safe_open

STORAGE = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
OPTIONS = {"default": {}, "proj_out": {"skip_modules_pattern": ("proj_out", "^x_embedder$")}}


def sha256(tensor):
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:24]


def make_cases():
    for source, weight in typed_inputs().items():
        for name, dtype in STORAGE.items():
            stored = weight.to(dtype)
            hashes = {"weight": sha256(stored), "dequantized": sha256(stored.to(weight.dtype))}
            yield {"input": source, "scheme": name, "sha256": hashes}


def make_models():
    found = {}
    for name, dtype in STORAGE.items():
        for option, arguments in OPTIONS.items():
            with tempfile.TemporaryDirectory() as folder:
                model = FluxTransformer2DModel.from_pretrained(f"{HERE}/pipelines/dev/transformer",
                                                               torch_dtype=torch.bfloat16)
                model.enable_layerwise_casting(storage_dtype=dtype, compute_dtype=torch.bfloat16, **arguments)
                model.save_pretrained(folder)
                with safe_open(f"{folder}/diffusion_pytorch_model.safetensors", "pt") as file:
                    found[f"{name}.{option}"] = {key: sha256(file.get_tensor(key)) for key in file.keys()}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = ",\n".join(json.dumps(case) for case in make_cases())
    with open(f"{HERE}/layerwise.json", "w") as file:
        file.write(f'{{"cases": [\n{cases}\n],\n"models": {json.dumps(make_models())}}}\n')
