"""Whether the model knows which colour belongs to which shape, and what stands where.

usage: binding.py FOLDER
Takes 96 unseen pictures of two shapes, adds noise, and compares the loss of each picture's own caption with that of a
caption in which the colours, the shapes or both are exchanged. Knowing nothing gives 0 % and half of the pictures.
"""
import random
import re
import sys

import torch
from diffusers import AutoencoderKL

import latents
import train_flow

PICTURES, SEED = 96, 99  # another seed than the training's
NOISE_LEVELS = (0.95, 0.85, 0.7)
TWO_SHAPES = re.compile(r"(\w+) (\w+) (above|below|left of|right of) an? (\w+) (\w+) (on|at) ")


def exchange(caption, what):
    """The caption with the two "colours", "shapes" or "both" exchanged."""
    found = TWO_SHAPES.search(caption)
    color, shape, relation, other_color, other_shape, rest = found.groups()
    if what != "shapes":
        color, other_color = other_color, color
    if what != "colours":
        shape, other_shape = other_shape, shape
    middle = f"{color} {shape} {relation} a {other_color} {other_shape} {rest} "
    return (caption[:found.start()] + middle + caption[found.end():]).replace("a orange", "an orange")


class Measure:
    def __init__(self, folder):
        self.clip_tokenizer, self.t5_tokenizer = train_flow.load_tokenizers(folder)
        self.models = train_flow.build_models(self.clip_tokenizer)
        train_flow.load_published(self.models, folder)
        vae = AutoencoderKL.from_pretrained(f"{folder}/vae", torch_dtype=torch.float32).eval()
        rng = random.Random(SEED)
        pairs = [latents.draw(rng, True) for _ in range(PICTURES)]
        self.captions = [caption for caption, _ in pairs]
        self.x0 = train_flow.pack(latents.encode(vae, [picture for _, picture in pairs]).float())
        self.noise = torch.randn(self.x0.shape, generator=torch.Generator().manual_seed(SEED))

    def ids(self, tokenizer, captions):
        return tokenizer(captions, padding="max_length", max_length=train_flow.TEXT_TOKENS, truncation=True,
                         return_tensors="pt").input_ids

    @torch.no_grad()
    def losses(self, captions, u):
        """The loss of each picture at noise level u."""
        pooled = train_flow.pool(self.models["clip"], self.ids(self.clip_tokenizer, captions),
                                 self.clip_tokenizer.eos_token_id)
        velocity = self.models["transformer"](
            hidden_states=(1 - u) * self.x0 + u * self.noise, timestep=torch.full((PICTURES,), u),
            encoder_hidden_states=self.models["t5"](self.ids(self.t5_tokenizer, captions)).last_hidden_state,
            pooled_projections=pooled, img_ids=train_flow.grid_ids(8), txt_ids=torch.zeros(train_flow.TEXT_TOKENS, 3),
            return_dict=False)[0]
        return (velocity - (self.noise - self.x0)).square().mean((1, 2))


def main():
    measure = Measure(sys.argv[1])
    for u in NOISE_LEVELS:
        own = measure.losses(measure.captions, u)
        print(f"noise {u}: loss {own.mean():.4f}")
        for what in ("colours", "shapes", "both"):
            other = measure.losses([exchange(caption, what) for caption in measure.captions], u)
            print(f"  {what} exchanged: {100 * ((other - own) / own).mean():+.1f} %,"
                  f" the own caption is better for {100 * (other > own).float().mean():.0f} %")


if __name__ == "__main__":
    main()
