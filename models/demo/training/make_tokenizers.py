"""Small tokenizers in the file layout of FLUX.1's two: CLIP BPE and T5 Unigram.

usage: make_tokenizers.py FOLDER
Writes FOLDER/tokenizer (vocab.json, merges.txt) and FOLDER/tokenizer_2 (tokenizer.json).
"""
import json
import math
import os
import random
import sys
from collections import Counter

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from scenes import sample

WORDS = """the of and to in is it that was for on are as with his they at be this have from or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know""".split()
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:;()"
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CLIP_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"


def make_corpus():
    """Captions, random common words and single signs."""
    rng = random.Random(7)
    captions = [sample(rng)[0] for _ in range(20000)]
    chatter = [" ".join(rng.choices(WORDS, k=8)) for _ in range(3000)]
    return captions + chatter + list(SIGNS) * 20


def unigram_pieces(corpus):
    """(piece, log probability) of the 400 commonest words, plain and capitalised, and of every sign."""
    counts = Counter(word for line in corpus for word in line.lower().replace(".", " ").split())
    total = sum(counts.values())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    for word, count in counts.most_common(400):
        if len(word) > 1:
            log_share = math.log(count / total)
            pieces += [("▁" + word, log_share), ("▁" + word.capitalize(), log_share - 1.0)]
    pieces += [("▁a", -2.0), ("▁A", -4.0), ("s", -6.0)]
    return pieces + [(sign, -9.0) for sign in SIGNS + CAPITALS if sign != "s"]


def make_t5(corpus, folder):
    tokenizer = Tokenizer(models.Unigram(unigram_pieces(corpus), unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(f"{folder}/tokenizer.json")
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": "T5Tokenizer", "model_max_length": 512, **special, "extra_ids": 0,
        "additional_special_tokens": []}, indent=2)
    write_json(f"{folder}/special_tokens_map.json", special, indent=2)
    return tokenizer


def train_bpe(corpus):
    """(vocabulary, merge lines) of a byte-level BPE with CLIP's splitting."""
    tokenizer = Tokenizer(models.BPE(unk_token=CLIP_END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CLIP_SPLIT), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=1022, special_tokens=[], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>"))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]


def make_clip(corpus, folder):
    vocabulary, merges = train_bpe(corpus)
    first_free = max(vocabulary.values()) + 1
    vocabulary |= {CLIP_START: first_free, CLIP_END: first_free + 1}
    os.makedirs(folder, exist_ok=True)
    write_json(f"{folder}/vocab.json", vocabulary, ensure_ascii=False)
    with open(f"{folder}/merges.txt", "w") as file:
        file.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos_token": CLIP_START, "eos_token": CLIP_END, "pad_token": CLIP_END, "unk_token": CLIP_END}
    write_json(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special,
        "add_prefix_space": False, "errors": "replace"}, indent=2)
    write_json(f"{folder}/special_tokens_map.json", special, indent=2)
    return vocabulary


def write_json(path, value, **options):
    with open(path, "w") as file:
        json.dump(value, file, **options)


def main():
    folder, corpus = sys.argv[1], make_corpus()
    t5 = make_t5(corpus, f"{folder}/tokenizer_2")
    vocabulary = make_clip(corpus, f"{folder}/tokenizer")
    print("t5", t5.get_vocab_size(), "clip", len(vocabulary))
    print(t5.encode("a red circle above an orange fish on a teal background").tokens)


if __name__ == "__main__":
    main()
