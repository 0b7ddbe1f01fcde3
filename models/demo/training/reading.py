"""What a caption says, as labels: which colour each shape has and where it stands.

A language model brings this knowledge to FLUX.1 from its own training; T5 and CLIP here see nothing but the captions,
and the velocity's loss alone teaches them the binding of colours to shapes only after many thousand steps. So each
learns to spell it out through a linear head: T5 at the words themselves, CLIP in its pooled vector.
"""
import re

import torch
import torch.nn.functional as F

from scenes import COLORS, PLACES, RELATIONS, SHAPES

COLOR_NAMES, SHAPE_NAMES = list(COLORS), list(SHAPES)
PLACE_NAMES = ["", "on the left", "on the right", "at the top", "at the bottom"]
RELATION_PLACES = {"above": (3, 4), "below": (4, 3), "left of": (1, 2), "right of": (2, 1)}
IGNORE = -100
SHAPE_PHRASE = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
GROUND = re.compile(rf"on a ({'|'.join(COLORS)}) background")
assert set(PLACE_NAMES) == set(PLACES) and set(RELATION_PLACES) == set(RELATIONS)


def phrases(caption):
    """[(first character, end, colour, shape, place)] of a caption, as numbers."""
    found = list(SHAPE_PHRASE.finditer(caption))
    places = [next((i for i, name in enumerate(PLACE_NAMES) if name and name in caption), 0)]
    if len(found) == 2:
        between = caption[found[0].end():found[1].start()]
        places = next(pair for relation, pair in RELATION_PLACES.items() if relation in between)
    return [(m.start(), m.end(), COLOR_NAMES.index(m[1]), SHAPE_NAMES.index(m[2]), place)
            for m, place in zip(found, places)]


def word_labels(captions, tokenizer, length):
    """[captions, length, 3]: colour, shape and place at each token of a shape's phrase, IGNORE elsewhere."""
    offsets = tokenizer(captions, padding="max_length", max_length=length, truncation=True,
                        return_offsets_mapping=True).offset_mapping
    labels = torch.full((len(captions), length, 3), IGNORE)
    for row, caption in enumerate(captions):
        for start, end, *what in phrases(caption):
            tokens = [i for i, (a, b) in enumerate(offsets[row]) if a < end and b > start]
            labels[row, tokens] = torch.tensor(what)
    return labels


def slot_labels(captions):
    """[captions, 11]: colour of each place, shape of each place, background."""
    places = len(PLACE_NAMES)
    labels = torch.zeros(len(captions), 2 * places + 1, dtype=torch.long)
    labels[:, :places], labels[:, places:] = len(COLORS), len(SHAPES)
    for row, caption in enumerate(captions):
        for _, _, color, shape, place in phrases(caption):
            labels[row, place], labels[row, places + place] = color, shape
        ground = GROUND.search(caption)
        labels[row, -1] = COLOR_NAMES.index(ground[1]) if ground else len(COLORS)
    return labels


class Reading(torch.nn.Module):
    """The linear heads. T5's states are [n, tokens, t5_width], CLIP's pooled vector is [n, clip_width]."""

    WORD_SIZES = (len(COLORS), len(SHAPES), len(PLACES))
    SLOT_SIZES = (*[len(COLORS) + 1] * len(PLACES), *[len(SHAPES) + 1] * len(PLACES), len(COLORS) + 1)

    def __init__(self, t5_width, clip_width):
        super().__init__()
        self.words = torch.nn.Linear(t5_width, sum(self.WORD_SIZES))
        self.slots = torch.nn.Linear(clip_width, sum(self.SLOT_SIZES))

    def answers(self, t5_states, pooled):
        """Logits of each label: those of the words, then those of the slots."""
        return (self.words(t5_states).split(self.WORD_SIZES, -1), self.slots(pooled).split(self.SLOT_SIZES, -1))

    def losses(self, t5_states, pooled, words, slots):
        """Mean cross entropy of T5's and of CLIP's labels; 0 where nothing is labelled."""
        word_logits, slot_logits = self.answers(t5_states, pooled)
        known = (words[..., 0] != IGNORE).sum().clamp(min=1)
        t5 = sum(F.cross_entropy(logits.flatten(0, 1), words[..., i].flatten(), ignore_index=IGNORE, reduction="sum")
                 for i, logits in enumerate(word_logits)) / known
        clip = sum(F.cross_entropy(logits, slots[:, i]) for i, logits in enumerate(slot_logits))
        return t5, clip

    @torch.no_grad()
    def right(self, t5_states, pooled, words, slots):
        """Shares of right answers: of T5's labelled tokens, of CLIP's captions (all of a caption's slots right)."""
        word_logits, slot_logits = self.answers(t5_states, pooled)
        known = words[..., 0] != IGNORE
        t5 = torch.stack([logits.argmax(-1) == words[..., i] for i, logits in enumerate(word_logits)]).all(0)
        clip = torch.stack([logits.argmax(-1) == slots[:, i] for i, logits in enumerate(slot_logits)]).all(0)
        return t5[known].float().mean().item(), clip.float().mean().item()
