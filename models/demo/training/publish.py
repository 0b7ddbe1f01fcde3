"""Copy a trained folder's models into another folder as bfloat16, in Diffusers' layout.

usage: publish.py TRAINED_FOLDER PUBLISHED_FOLDER
"""
import json
import os
import shutil
import sys

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

PARTS = {"transformer": FluxTransformer2DModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
         "text_encoder_2": T5EncoderModel}
COPIED = ["model_index.json", "scheduler", "tokenizer", "tokenizer_2"]


def drop_source_path(config_file):
    """save_pretrained notes where the weights lay on this machine."""
    with open(config_file) as file:
        config = json.load(file)
    if config.pop("_name_or_path", None) is not None:
        with open(config_file, "w") as file:
            json.dump(config, file, indent=2, sort_keys=True)


def main():
    source, target = sys.argv[1], sys.argv[2]
    for name, kind in PARTS.items():
        kind.from_pretrained(f"{source}/{name}").to(torch.bfloat16).save_pretrained(f"{target}/{name}")
        drop_source_path(f"{target}/{name}/config.json")
    for name in COPIED:
        copy = shutil.copytree if os.path.isdir(f"{source}/{name}") else shutil.copy
        copy(f"{source}/{name}", f"{target}/{name}", **({"dirs_exist_ok": True} if copy is shutil.copytree else {}))


if __name__ == "__main__":
    main()
