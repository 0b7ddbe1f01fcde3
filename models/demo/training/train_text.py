"""Phase 1b: T5 and CLIP learn from captions alone which colour and place belong to which shape.

usage: train_text.py FOLDER MINUTES [--threads 2] [--batch 48] [--lr 5e-4] [--keep 1.0]

T5 starts anew: it can do all of it after a hundred steps, while one that was trained by the velocity alone does not
learn it any more. CLIP takes longer and starts from FOLDER; `--keep` holds its pooled vector near the one that a
transformer there already uses. Writes both to FOLDER, with reading.pt, the heads, for `train_flow.py`.
"""
import argparse
import copy
import os
import random
import time

import torch
import torch.nn.functional as F
from transformers import CLIPTextModel

import latents
import reading
import train_flow

FRESH, UNSEEN, UNSEEN_SEED = 60000, 512, 99


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--keep", type=float, default=1.0, help="weight of the distance to the pooled vector before")
    return parser.parse_args()


class Captions:
    """Captions without their pictures, as token ids and labels."""

    def __init__(self, folder, seed, count):
        rng = random.Random(seed)
        captions = [latents.draw_caption(rng, index % 4 != 0) for index in range(count)]
        self.clip_tokenizer, t5_tokenizer = train_flow.load_tokenizers(folder)
        self.t5_ids = t5_tokenizer(captions, padding="max_length", max_length=train_flow.TEXT_TOKENS, truncation=True,
                                   return_tensors="pt").input_ids
        self.clip_ids = self.clip_tokenizer(captions, padding="longest", return_tensors="pt").input_ids
        self.words = reading.word_labels(captions, t5_tokenizer, train_flow.TEXT_TOKENS)
        self.slots = reading.slot_labels(captions)

    def pick(self, rows):
        return self.t5_ids[rows], self.clip_ids[rows], self.words[rows], self.slots[rows]


class TextTrainer:
    def __init__(self, args):
        self.args = args
        self.seen, self.unseen = Captions(args.folder, 7, FRESH), Captions(args.folder, UNSEEN_SEED, UNSEEN)
        self.eos = self.seen.clip_tokenizer.eos_token_id
        models = train_flow.build_models(self.seen.clip_tokenizer)
        self.t5, self.clip = models["t5"], models["clip"]
        if os.path.exists(f"{args.folder}/text_encoder"):
            self.clip = CLIPTextModel.from_pretrained(f"{args.folder}/text_encoder").float()
        self.before = copy.deepcopy(self.clip)
        self.reading = reading.Reading(self.t5.config.d_model, self.clip.config.hidden_size)
        self.optimizer = torch.optim.AdamW(
            train_flow.text_groups(self.t5, self.clip, self.reading), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)

    def loss(self):
        t5_ids, clip_ids, words, slots = self.seen.pick(torch.randint(0, FRESH, (self.args.batch,)))
        pooled = train_flow.pool(self.clip, clip_ids, self.eos)
        with torch.no_grad():
            old = train_flow.pool(self.before, clip_ids, self.eos)
        kept = F.mse_loss(pooled, old) / old.var()
        read = self.reading.losses(self.t5(t5_ids).last_hidden_state, pooled, words, slots)
        return sum(read) + self.args.keep * kept, kept

    @torch.no_grad()
    def report(self, share, step, kept):
        t5_ids, clip_ids, words, slots = self.unseen.pick(slice(None))
        states, pooled = self.t5(t5_ids).last_hidden_state, train_flow.pool(self.clip, clip_ids, self.eos)
        t5, clip = self.reading.right(states, pooled, words, slots)
        print(f"{share:4.0%} step {step} right in unseen captions: T5 {t5:.1%} of words, CLIP {clip:.1%} of captions;"
              f" distance {kept.item():.3f}", flush=True)

    def run(self):
        began, step, share = time.time(), 0, 0.0
        while share < 1:
            share = min(1.0, (time.time() - began) / 60 / self.args.minutes)
            for group in self.optimizer.param_groups:
                group["lr"] = self.args.lr * group["share"] * min(1.0, (step + 1) / 100, 2 * (1 - share) + 0.01)
            loss, kept = self.loss()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            step += 1
            if step % 100 == 0 or share == 1:
                self.report(share, step, kept)

    def save(self):
        self.t5.save_pretrained(f"{self.args.folder}/text_encoder_2")
        self.clip.save_pretrained(f"{self.args.folder}/text_encoder")
        torch.save(self.reading.state_dict(), f"{self.args.folder}/reading.pt")


def main():
    args = parse_arguments()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    trainer = TextTrainer(args)
    trainer.run()
    trainer.save()


if __name__ == "__main__":
    main()
