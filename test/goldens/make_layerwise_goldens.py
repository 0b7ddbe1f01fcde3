"""Goldens of FP8 layerwise casting: python make_layerwise_goldens.py writes layerwise.json.

Hashes (their first 24 digits) of quantizer_inputs cast by PyTorch, and of the tensors that Diffusers saves of tiny models
after enable_layerwise_casting, also of one in bitsandbytes' NF4; and the class of every module with parameters.
"""

import hashlib
import json
import tempfile

import torch
from diffusers import AutoencoderKL, BitsAndBytesConfig, FluxTransformer2DModel
from diffusers.models.autoencoders.vae import Encoder
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from make_bitsandbytes_goldens import allow_cpu
from quantizer_inputs import HERE, typed_inputs
from safetensors import safe_open
from transformers import CLIPTextModel, T5EncoderModel

STORAGE = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
DEV = f"{HERE}/pipelines/dev"
OPTIONS = {
    "default": {}, "proj_out": {"skip_modules_pattern": ("proj_out", "^x_embedder$")},
    "classes": {"skip_modules_classes": (FluxSingleTransformerBlock, AdaLayerNormContinuous)},
}
MODELS = {"transformer": FluxTransformer2DModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
          "text_encoder_2": T5EncoderModel}


def sha256(tensor):
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:24]


def make_cases():
    for source, weight in typed_inputs().items():
        for name, dtype in STORAGE.items():
            stored = weight.to(dtype)
            hashes = {"weight": sha256(stored), "dequantized": sha256(stored.to(weight.dtype))}
            yield {"input": source, "scheme": name, "sha256": hashes}


def saved(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(f"{folder}/diffusion_pytorch_model.safetensors", "pt") as file:
            return {key: sha256(file.get_tensor(key)) for key in file.keys()}


def make_models():
    found = {}
    for name, dtype in STORAGE.items():
        for option, arguments in OPTIONS.items():
            model = FluxTransformer2DModel.from_pretrained(f"{DEV}/transformer", torch_dtype=torch.bfloat16)
            model.enable_layerwise_casting(storage_dtype=dtype, compute_dtype=torch.bfloat16, **arguments)
            found[f"{name}.{option}"] = saved(model)
    return found


def make_vae():
    model = AutoencoderKL.from_pretrained(f"{DEV}/vae", torch_dtype=torch.bfloat16)
    model.enable_layerwise_casting(skip_modules_pattern=("conv_out",), skip_modules_classes=(Encoder,))
    return saved(model)


def make_over_nf4():
    """The blocks' attention in NF4, the rest cast."""
    allow_cpu()
    skipped = ["x_embedder", "context_embedder", "time_text_embed", "norm_out", "ff", "ff_context", "proj_out"]
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=skipped)
    model = FluxTransformer2DModel.from_pretrained(f"{DEV}/transformer", torch_dtype=torch.bfloat16,
                                                   quantization_config=config)
    model.enable_layerwise_casting(compute_dtype=torch.bfloat16)
    return saved(model)


def make_classes():
    """model -> module with parameters -> class"""
    models = {name: kind.from_pretrained(f"{DEV}/{name}") for name, kind in MODELS.items()}
    return {name: {path: type(module).__name__ for path, module in model.named_modules() if list(module.parameters())}
            for name, model in models.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = ",\n".join(json.dumps(case) for case in make_cases())
    with open(f"{HERE}/layerwise.json", "w") as file:
        rest = {"models": make_models(), "vae": make_vae(), "over_nf4": make_over_nf4(), "classes": make_classes()}
        more = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in rest.items())
        file.write(f'{{"cases": [\n{cases}\n],\n{more}}}\n')
