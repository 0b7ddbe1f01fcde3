"""Latents and captions of the training pictures: drawn and encoded once, then kept in a cache file.

usage: latents.py FOLDER PICTURES [two]    (FOLDER holds the VAE; "two": pictures of two shapes only, another seed)
"""
import os
import random
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL

from scenes import RELATIONS, CaptionScene, describe, sample

CHUNK = 64
SEED, TWO_SHAPES_SEED = 1234, 5678  # other seeds than the VAE's pictures


def pictures_to_tensor(pictures):
    """PIL pictures -> float32 [n, 3, height, width] in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


@torch.no_grad()
def encode(vae, pictures):
    """Normalised latent means, kept as float16."""
    mean = vae.encode(pictures_to_tensor(pictures).to(vae.device)).latent_dist.mean
    return ((mean - vae.config.shift_factor) * vae.config.scaling_factor).half().cpu()


def has_two_shapes(caption):
    return any(f" {relation} " in caption for relation in RELATIONS)


def draw(rng, two_shapes_only):
    """One (caption, picture) pair."""
    while True:
        caption, picture = sample(rng)
        if has_two_shapes(caption) or not two_shapes_only:
            return caption, picture


def draw_caption(rng, two_shapes_only):
    """A caption alone."""
    while True:
        caption = describe(CaptionScene(rng), rng)
        if has_two_shapes(caption) or not two_shapes_only:
            return caption


def load_or_make(folder, count, two_shapes_only=False):
    """(latents [count, 16, h, w] float16, captions), from the cache or made now."""
    cache = f"{folder}/latents_{'two_' if two_shapes_only else ''}{count}.pt"
    if os.path.exists(cache):
        return torch.load(cache)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = AutoencoderKL.from_pretrained(f"{folder}/vae", torch_dtype=torch.float32).eval().to(device)
    rng = random.Random(TWO_SHAPES_SEED if two_shapes_only else SEED)
    latents, captions = [], []
    for start in range(0, count, CHUNK):
        pairs = [draw(rng, two_shapes_only) for _ in range(CHUNK)]
        captions += [caption for caption, _ in pairs]
        latents.append(encode(vae, [picture for _, picture in pairs]))
        if start % (50 * CHUNK) == 0:
            print("latents", start, flush=True)
    result = torch.cat(latents), captions
    torch.save(result, cache + ".part")
    os.replace(cache + ".part", cache)
    return result


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    made, _ = load_or_make(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["two"])
    print("latents", tuple(made.shape))
