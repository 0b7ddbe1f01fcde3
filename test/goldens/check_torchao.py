"""Loads a transformer that halftone quantized to a torchao format, with Diffusers, and runs it once on the CPU.

usage: check_torchao.py FOLDER
Prints the classes of its weights, how they round activations, and the size of the output.

torchao refuses float8 without a GPU that multiplies in it; PyTorch's CPU code can, so that check is taken out.
"""

import sys
from collections import Counter

import torch
from diffusers import FluxTransformer2DModel
from torchao.quantization import quant_api

quant_api._check_hardware_support = lambda granularity: None


def describe(weight):
    rounding = getattr(weight, "act_quant_kwargs", None) or getattr(weight, "activation_quantization", None)
    return type(weight).__name__, str(rounding)


def forward(model):
    config = model.config
    inputs = {
        "hidden_states": torch.randn(1, 16, config.in_channels), "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(1, 8, config.joint_attention_dim),
        "pooled_projections": torch.randn(1, config.pooled_projection_dim),
    }
    if config.guidance_embeds:
        inputs["guidance"] = torch.tensor([3.5])
    inputs = {name: value.to(torch.bfloat16) for name, value in inputs.items()}
    ids = {"img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(8, 3)}
    with torch.no_grad():
        return model(**inputs, **ids).sample.float()


def main(folder):
    torch.manual_seed(0)
    model = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)
    for (name, rounding), count in sorted(Counter(describe(p) for p in model.parameters()).items()):
        print(count, name, rounding)
    sample = forward(model)
    assert torch.isfinite(sample).all()
    print("output", list(sample.shape), "norm", round(sample.norm().item(), 4))


if __name__ == "__main__":
    main(sys.argv[1])
