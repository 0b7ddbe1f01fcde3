"""Phase 1: a Flux-shaped AutoencoderKL (16 latent channels, factor 8) on the program's pictures.

usage: train_vae.py FOLDER MINUTES CROP BATCH LEARNING_RATE [THREADS]     (continues from FOLDER when it is there)
"""
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from scenes import SIZE, sample

POOL = 256
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load_or_build(folder):
    if os.path.exists(folder):
        return AutoencoderKL.from_pretrained(folder)
    return AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[16, 32, 64, 64], layers_per_block=1,
        latent_channels=16, norm_num_groups=16, sample_size=SIZE, scaling_factor=1.0, shift_factor=0.0,
        use_quant_conv=False, use_post_quant_conv=False)


class Pictures:
    """Crops from a pool through which fresh pictures flow, so that drawing does not hold the training up."""

    def __init__(self, size):
        self.rng, self.size, self.pool = random.Random(time.time_ns()), size, []

    def drawn(self):
        return np.asarray(sample(self.rng)[1])

    def crop(self, side):
        picture = self.pool[self.rng.randrange(POOL)]
        y, x = (self.rng.randrange(0, SIZE - side + 1, 8) for _ in range(2))
        return picture[y:y + side, x:x + side]

    def batch(self, side):
        while len(self.pool) < POOL:
            self.pool.append(self.drawn())
        for _ in range(max(2, self.size // 4)):
            self.pool[self.rng.randrange(POOL)] = self.drawn()
        pixels = torch.from_numpy(np.stack([self.crop(side) for _ in range(self.size)]))
        return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).to(DEVICE)


def differences(x):
    """Horizontal and vertical neighbours' differences."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def losses(vae, x, half):
    """(total loss, mean squared error)."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
    y = y.float()
    squared = F.mse_loss(y, x)
    edges = sum(F.l1_loss(a, b) for a, b in zip(differences(y), differences(x)))
    return F.l1_loss(y, x) + 2 * squared + edges + 1e-6 * posterior.kl().float().mean(), squared


def train(vae, pictures, folder, minutes, crop, peak):
    optimizer = torch.optim.AdamW(vae.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    began, step, errors = time.time(), 0, []
    while (share := (time.time() - began) / 60 / minutes) < 1:
        rate = peak * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-5
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, squared = losses(vae, pictures.batch(crop), half=DEVICE == "cuda" or crop < SIZE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        errors.append(squared.item())
        if step % 200 == 0:
            psnr = 10 * np.log10(4 / np.mean(errors[-200:]))
            print(f"{share * minutes:.1f}m step {step} psnr {psnr:.2f} loss {loss.item():.4f}", flush=True)
        if step % 1000 == 0:
            vae.save_pretrained(folder)
    return step


@torch.no_grad()
def set_latent_scale(vae, pictures):
    """scaling_factor and shift_factor that give the latents mean 0 and deviation 1."""
    z = torch.cat([vae.encode(pictures.batch(SIZE)).latent_dist.mean for _ in range(24)])
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 4), shift_factor=round(z.mean().item(), 4))


def main():
    folder, minutes, crop, batch, peak = sys.argv[1], *map(float, sys.argv[2:6])
    torch.manual_seed(int(time.time()))
    torch.set_num_threads(int(sys.argv[6]) if len(sys.argv) > 6 else 2)
    vae, pictures = load_or_build(folder).train().to(DEVICE), Pictures(int(batch))
    step = train(vae, pictures, folder, minutes, int(crop), peak)
    vae.eval()
    set_latent_scale(vae, pictures)
    vae.save_pretrained(folder)
    print("saved", step, vae.config.scaling_factor, vae.config.shift_factor)


if __name__ == "__main__":
    main()
