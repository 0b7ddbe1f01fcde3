"""What the model draws, through Diffusers' own FluxPipeline.

usage: sample.py FOLDER OUT.png STEPS [PROMPT ...]     (8 fixed prompts when none is given; seed 0)
"""
import sys

import torch
from diffusers import FluxPipeline
from PIL import Image

PROMPTS = [
    "a red star above a blue house on a white background", "a yellow face on a purple background",
    "a large green tree on a pink background", "an orange fish left of a teal moon at sunset",
    "a small black cross at the top on a yellow background", "a white flower on a green background",
    "a pink heart on a black background", "a blue ring below a brown diamond on a gray background",
]
SIDE, COLUMNS = 128, 4


def main():
    folder, out, steps, prompts = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:] or PROMPTS
    torch.set_num_threads(1)
    pipe = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rows = (len(prompts) + COLUMNS - 1) // COLUMNS
    sheet = Image.new("RGB", (SIDE * COLUMNS, SIDE * rows))
    for i, prompt in enumerate(prompts):
        picture = pipe(prompt, width=SIDE, height=SIDE, num_inference_steps=steps, max_sequence_length=32,
                       generator=torch.Generator().manual_seed(0)).images[0]
        sheet.paste(picture, (i % COLUMNS * SIDE, i // COLUMNS * SIDE))
    sheet.save(out)


if __name__ == "__main__":
    main()
