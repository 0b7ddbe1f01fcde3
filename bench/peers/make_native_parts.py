"""Writes what stable-diffusion.cpp wants beside a transformer, with random weights: FLUX.1's autoencoder and CLIP.

    python bench/peers/make_native_parts.py FOLDER
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

CHANNELS = (128, 256, 512, 512)

folder = Path(sys.argv[1])
AutoencoderKL(
    down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
    up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
    block_out_channels=CHANNELS,
    layers_per_block=2,
    latent_channels=16,
    use_quant_conv=False,
    use_post_quant_conv=False,
).to(torch.bfloat16).save_pretrained(folder / "vae")
config = CLIPTextConfig(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    projection_dim=768,
)
weights = CLIPTextModel(config).to(torch.bfloat16).state_dict()
# The names of the published file, which newer versions of the library shorten.
names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in weights}
save_file({names[name]: tensor.contiguous() for name, tensor in weights.items()}, folder / "clip.safetensors")
