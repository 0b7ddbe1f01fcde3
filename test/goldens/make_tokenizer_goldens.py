"""Tokenizers of Transformers and Tokenizers on random Unicode text -> tokenizers/.

- nmt_nfkc.charsmap.gz: the normalization rules SentencePiece puts into models such as T5's.
- t5_tiny.json: a small Unigram tokenizer trained here, its charsmap left out (tests put the one above in).
- random_texts.json: [text, ids of the demo CLIP, ids of the demo T5, ids of the tiny T5], special tokens included.
- charsmap.json: texts with their normal forms, and the hash of the normal forms of all single characters.
- variants.json: folders with unusual declarations of special tokens, with texts and ids.
- real_texts.json: [text, CLIP ids, T5 ids] of FLUX.1's own tokenizers; only with the folder that has them in
  tokenizer/ and tokenizer_2/ as the argument (the vocabularies are not part of this repository).
"""
import gzip
import hashlib
import json
import logging
import pathlib
import random
import sys
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, normalizers
from transformers import CLIPTokenizer, T5TokenizerFast

logging.disable(logging.WARNING)
OUT = pathlib.Path(__file__).with_name("tokenizers")
DEMO = pathlib.Path(__file__).parents[2] / "models" / "demo"
rng = random.Random(8)

WORDS = """a the of star moon house red blue orange fish above left background on at it's don't we'll HELLO World CamelCase
naïve café Straße ΟΔΟΣ σς İstanbul ıI ǅ ﬁne Ⅷ ½ ① ² ｆｕｌｌ ﷺ привет мир 日本語 東京 한국어 한 العربية لا हिन्दी क्षि ไทย น้ำ
😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 e\u0301 e\u0323\u0302 a\u030a\u0301 \u0344 \u0958 1\ufe0f\u20e3 123 4,567.89 ٣ ४ x² </s> <pad> <unk> <|endoftext|> <|startoftext|>
<|ENDOFTEXT|> <extra_id_0> ▁ ▁▁moon !!! ... ?! -- ' '' 's "quoted" a_b #tag http://x.org/?a=1&b=2 \u0000 \u0001 \u007f \u0600a \u0d4eक""".split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2009", "\u200b", "\ufeff", "\u0085", "\u2028", "", "", ""]


def random_text():
    parts = []
    for _ in range(rng.randint(0, 9)):
        kind = rng.random()
        if kind < 0.7:
            parts.append(rng.choice(WORDS))
        elif kind < 0.8:
            parts.append("".join(rng.choice("abcdefghijklmnopqrstuvwxyzABC0123'.,!") for _ in range(rng.randint(1, 12))))
        else:
            high = rng.choice([0x250, 0x800, 0x3000, 0xD800, 0x10000, 0x1FA00])
            parts.append("".join(chr(rng.randrange(0x20, high)) for _ in range(rng.randint(1, 4))))
        parts.append(rng.choice(SPACES))
    # Not every library and engine knows the characters of the newest Unicode, so none that this Python does not.
    return "".join(c for c in "".join(parts) if unicodedata.category(c) not in ("Cn", "Cs"))


def train_tiny():
    """A Unigram model with nmt_nfkc normalization: its pieces and charsmap."""
    corpus = [" ".join(rng.choices(WORDS[:60], k=9)).replace("\0", "") for _ in range(3000)]
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "corpus.txt").write_text("\n".join(corpus))
        sentencepiece.SentencePieceTrainer.train(
            input=f"{folder}/corpus.txt", model_prefix=f"{folder}/tiny", vocab_size=400, model_type="unigram",
            normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98,
            hard_vocab_limit=False, minloglevel=2, num_threads=1)
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(pathlib.Path(folder, "tiny.model").read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    pieces += [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    return pieces, proto.normalizer_spec.precompiled_charsmap


def save_tiny(folder, pieces, charsmap):
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    if charsmap:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap)])
    tokenizer.save(str(pathlib.Path(folder, "tokenizer.json")))
    return T5TokenizerFast.from_pretrained(str(folder))


def make_charsmap(charsmap):
    precompiled = normalizers.Precompiled(charsmap)
    texts = [random_text() for _ in range(150)]
    digest = hashlib.sha256()
    for code in range(0x30000):
        if not 0xD800 <= code < 0xE000:
            digest.update(precompiled.normalize_str(chr(code)).encode() + b"\n")
    return {
        "texts": [[text, precompiled.normalize_str(text)] for text in texts],
        "characters_below": 0x30000,
        "sha256": digest.hexdigest(),
    }


def token(content, **properties):
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content, **flags, **properties}


VARIANTS = {
    "clip with normalized special tokens": ("tokenizer", {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"584": token("<|startoftext|>", normalized=True), "585": token("<|endoftext|>", normalized=True)},
            "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}}),
    "clip with another pad token": ("tokenizer", {
        "special_tokens_map.json": {"pad_token": "!", "bos_token": token("<|startoftext|>", normalized=True)},
        "tokenizer_config.json": {"pad_token": "<|endoftext|>"}}),
    "clip with a token that strips": ("tokenizer", {
        "tokenizer_config.json": {"added_tokens_decoder": {
            "584": token("<|startoftext|>", lstrip=True, rstrip=True), "585": token("<|endoftext|>", single_word=True),
            "586": token("sks", single_word=True), "587": token("<new>", special=False)}}}),
    "clip without declarations": ("tokenizer", {"tokenizer_config.json": {}, "special_tokens_map.json": {}}),
    "t5 with stripping special tokens": ("tokenizer_2", {
        "tokenizer_config.json": {"extra_ids": 0, "added_tokens_decoder": {
            "0": token("<pad>", lstrip=True), "1": token("</s>", rstrip=True), "2": token("<unk>")}}}),
    "t5 without declarations": ("tokenizer_2", {"tokenizer_config.json": {"extra_ids": 0}, "special_tokens_map.json": {}}),
}
VARIANT_TEXTS = [
    "a <|ENDOFTEXT|> star<|endoftext|>moon <|startoftext|> a", "<|endoftext|><|endoftext|>", " <|startoftext|>  star",
    "a sks star, skskate sks. <new>", "red <pad> star </s> moon<pad></s> <unk>", "a star", "x" * 20,
]


def make_variant(name, base, changes):
    files = {p.name: p.read_text() for p in (DEMO / base).iterdir() if p.is_file()}
    files.update({file: json.dumps(value) for file, value in changes.items()})
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            pathlib.Path(folder, file).write_text(text)
        cls = CLIPTokenizer if base == "tokenizer" else T5TokenizerFast
        tokenizer = cls.from_pretrained(folder)
        length = 16
        return {
            "name": name, "base": base, "changes": changes, "length": length,
            "ids": [[text, tokenizer(text, max_length=length, padding="max_length", truncation=True).input_ids]
                    for text in VARIANT_TEXTS],
        }


def write_rows(name, rows):
    (OUT / name).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def make_real(folder):
    rng.seed(17)
    clip = CLIPTokenizer.from_pretrained(str(pathlib.Path(folder, "tokenizer")))
    t5 = T5TokenizerFast.from_pretrained(str(pathlib.Path(folder, "tokenizer_2")))
    texts = [random_text() for _ in range(100)]
    write_rows("real_texts.json", [[t, clip(t).input_ids, t5(t).input_ids] for t in texts])


def main():
    OUT.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        return make_real(sys.argv[1])
    pieces, charsmap = train_tiny()
    (OUT / "nmt_nfkc.charsmap.gz").write_bytes(gzip.compress(charsmap, 9, mtime=0))
    with tempfile.TemporaryDirectory() as folder:
        tiny = save_tiny(folder, pieces, charsmap)
        bare = json.loads(pathlib.Path(folder, "tokenizer.json").read_text())
    bare["normalizer"]["normalizers"] = []
    (OUT / "t5_tiny.json").write_text(json.dumps(bare) + "\n")
    clip = CLIPTokenizer.from_pretrained(str(DEMO / "tokenizer"))
    t5 = T5TokenizerFast.from_pretrained(str(DEMO / "tokenizer_2"))
    texts = [random_text() for _ in range(300)]
    write_rows("random_texts.json", [[t, clip(t).input_ids, t5(t).input_ids, tiny(t).input_ids] for t in texts])
    (OUT / "charsmap.json").write_text(json.dumps(make_charsmap(charsmap)) + "\n")
    write_rows("variants.json", [make_variant(name, *variant) for name, variant in VARIANTS.items()])
    print(len(pieces), "pieces,", len(charsmap), "bytes of charsmap")


if __name__ == "__main__":
    main()
