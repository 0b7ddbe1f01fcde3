"""Distances of pictures by piq's gmsd in float64: python make_gmsd_goldens.py writes gmsd.json.

The pictures are made by integers, here and in the test: `pattern`, and `changed` variants of it.
"""

import json

import numpy as np
import piq
import torch
from quantizer_inputs import HERE

SIZES = [(32, 32), (48, 20), (33, 20), (20, 33), (15, 17), (128, 128)]


def grid(width, height):
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return x, y, c


def pattern(width, height):
    x, y, c = grid(width, height)
    return (x * x // 3 + y * y // 5 + x * y // 7 + c * 40) % 256


def changed(kind, width, height):
    x, y, c = grid(width, height)
    picture = pattern(width, height)
    if kind == "noisy":
        return np.clip(picture + (x * 31 + y * 17 + c * 7) % 23 - 11, 0, 255)
    if kind == "darker":
        return picture * 3 // 4
    if kind == "moved":
        return np.roll(picture, 1, axis=1)
    return np.full_like(picture, 90)  # flat


def tensor(picture):
    return torch.from_numpy(picture.astype(np.float64)).permute(2, 0, 1)[None]


def main():
    cases = []
    for width, height in SIZES:
        for kind in ("noisy", "darker", "moved", "flat"):
            distance = piq.gmsd(tensor(changed(kind, width, height)), tensor(pattern(width, height)), data_range=255)
            cases.append({"width": width, "height": height, "kind": kind, "gmsd": distance.item()})
    with open(f"{HERE}/gmsd.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
