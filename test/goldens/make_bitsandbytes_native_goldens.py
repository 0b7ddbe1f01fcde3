"""Double quantization as an installed bitsandbytes does it on a CPU, by its native library -> bitsandbytes_native.json

make_bitsandbytes_goldens.py keeps that library from loading; here it is wanted, for the nested statistics only (all
other bytes are the same). Inputs are those of bitsandbytes/functional.safetensors and the recipe of that script.

usage: make_bitsandbytes_native_goldens.py
"""
import hashlib
import json
import os
import tempfile

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import bitsandbytes.functional as bnb_functional
import torch
from bitsandbytes.cextension import BNBNativeLibrary, lib
from diffusers import BitsAndBytesConfig, FluxTransformer2DModel
from diffusers.quantizers.bitsandbytes import bnb_quantizer
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def recipe(count):
    i = torch.arange(count, dtype=torch.int64)
    k = (i * 7919 + (i % 1009) ** 2 * 31) % 20011 - 10005
    return k.float() / 4096 * torch.where(i % 97 == 0, 16.0, 1.0)


SIZES = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500, 511, 512, 513, 1000, 4096, 8191,
         8192, 8193, 36864, 100003, 294912, 1048577]


def mean(size):
    """torch.mean of values that are all positive, as absmax are."""
    values = recipe(size).abs().double() + (torch.arange(size) % 13).double() / 1000
    return values.float().mean().item()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def inputs():
    stored = load_file(f"{HERE}/bitsandbytes/functional.safetensors")
    for name, tensor in stored.items():
        if name.endswith(".input"):
            yield name.removesuffix(".input"), tensor
    for rows, columns in ((256, 384), (40, 1000), (1024, 1536)):
        for dtype_name, dtype in DTYPES.items():
            yield f"recipe_{rows}x{columns}.{dtype_name}", recipe(rows * columns).view(rows, columns).to(dtype)


def quantized(name, x, quant_type):
    packed, state = bnb_functional.quantize_4bit(x, compress_statistics=True, quant_type=quant_type)
    entries = state.as_dict(packed=True)
    description = bytes(entries.pop(f"quant_state.bitsandbytes__{quant_type}").tolist()).decode()
    hashes = {key: sha256(value.contiguous().view(torch.uint8).numpy().tobytes())
              for key, value in {"weight": packed, **entries}.items()}
    return {"input": name, "scheme": quant_type, "dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape),
            "quant_state": description, "sha256": hashes}


def model_hash():
    """The file Diffusers saves after quantizing pipelines/dev/transformer while loading."""
    quantizer = bnb_quantizer.BnB4BitDiffusersQuantizer
    quantizer.validate_environment = lambda self, *positional, **named: None  # it demands a GPU
    quantizer.update_device_map = lambda self, device_map: {"": "cpu"}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = FluxTransformer2DModel.from_pretrained(
        f"{HERE}/pipelines/dev/transformer", quantization_config=config, torch_dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with open(f"{folder}/diffusion_pytorch_model.safetensors", "rb") as file:
            return sha256(file.read())


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    assert isinstance(lib, BNBNativeLibrary), "the native library did not load"
    cases = [quantized(name, x, quant_type) for name, x in inputs() if x.ndim == 2 for quant_type in ("nf4", "fp4")]
    lines = ",\n".join(json.dumps(case) for case in cases)
    means = ",\n".join(json.dumps({"size": size, "mean": mean(size)}) for size in SIZES)
    with open(f"{HERE}/bitsandbytes_native.json", "w") as file:
        file.write(f'{{"nf4_double_transformer": "{model_hash()}",\n"means": [\n{means}\n],\n"cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
