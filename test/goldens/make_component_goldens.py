"""Scheduler tables, random draws, VAE, odd transformer and tokenizer goldens -> components/.

usage: make_component_goldens.py [scheduler] [random] [vae] [transformer] [tokenizers]
"""
import hashlib
import json
import os
import sys

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, T5TokenizerFast

import tiny_models as tiny

OUT = os.path.join(tiny.HERE, "components")


def write_json(name, value):
    """One record per line, so that a change shows as one line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in value)
    with open(f"{OUT}/{name}.json", "w") as file:
        file.write(f"[\n{lines}\n]\n")


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- scheduler -------------------------------------------------------------------------------------------------

DYNAMIC = {"use_dynamic_shifting": True}
OPTIONS = [
    {}, {"shift": 3.0}, {"shift": 1.15}, DYNAMIC, {**DYNAMIC, "time_shift_type": "linear"},
    {**DYNAMIC, "shift": 3.0, "max_shift": 1.15}, {**DYNAMIC, "shift_terminal": 0.1}, {"shift_terminal": 0.05},
    {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True},
    {"shift": 3.0, "use_karras_sigmas": True}, {**DYNAMIC, "use_exponential_sigmas": True},
    {**DYNAMIC, "use_beta_sigmas": True, "shift_terminal": 0.02},
    {"invert_sigmas": True}, {**DYNAMIC, "invert_sigmas": True}, {"num_train_timesteps": 500, "shift": 2.0},
]


def linear_sigmas(steps):
    """The sigmas which FluxPipeline hands over."""
    return torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()


def schedule_calls(dynamic):
    """Arguments of set_timesteps."""
    for steps in (1, 2, 4, 7, 28):
        yield {"num_inference_steps": steps}
        if steps != 1:
            yield {"num_inference_steps": steps, "sigmas": linear_sigmas(steps)}
    yield {"sigmas": [1.0, 0.8, 0.35, 0.2]}
    yield {"timesteps": [1000.0, 700.0, 300.0, 50.0]}
    yield {"timesteps": [990.0, 500.0, 10.0], "sigmas": [0.99, 0.5, 0.01]}


def scheduler_tables():
    for options in OPTIONS:
        for call in schedule_calls(options.get("use_dynamic_shifting")):
            for mu in ((0.5, 1.15, 0.63) if options.get("use_dynamic_shifting") else (None,)):
                scheduler = FlowMatchEulerDiscreteScheduler(**options)
                arguments = call if mu is None else {**call, "mu": mu}
                record = {"options": options, "arguments": arguments}
                try:
                    scheduler.set_timesteps(**arguments)
                except (ValueError, ZeroDivisionError) as error:
                    yield {**record, "error": str(error)}
                    continue
                tables = {"sigmas": scheduler.sigmas.tolist(), "timesteps": scheduler.timesteps.tolist()}
                finite = all(x == x and abs(x) < 1e30 for table in tables.values() for x in table)
                yield {**record, **tables} if finite else {**record, "error": "not finite"}


def scheduler_steps():
    """Three steps with a fixed velocity: plain, stochastic, inverted; and scale_noise."""
    found = {"sample": drawn(1, 2, 5, 4), "velocity": drawn(2, 2, 5, 4), "noise": drawn(3, 2, 5, 4)}
    for name, options in {"plain": {}, "stochastic": {"stochastic_sampling": True},
                          "inverted": {"invert_sigmas": True}}.items():
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **options)
        scheduler.set_timesteps(3)
        generator, sample, after = torch.Generator().manual_seed(9), found["sample"], []
        for timestep in scheduler.timesteps:
            if name == "stochastic":
                torch.manual_seed(int(timestep))  # the noise comes from the global generator
            sample = scheduler.step(found["velocity"], timestep, sample, generator=generator, return_dict=False)[0]
            after.append(sample)
        found[f"{name}.steps"], found[f"{name}.sigmas"] = torch.stack(after), scheduler.sigmas
        found[f"{name}.timesteps"] = scheduler.timesteps
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    found["scale_noise.timestep"] = scheduler.timesteps[1:2]
    found["scale_noise"] = scheduler.scale_noise(found["sample"], scheduler.timesteps[1:2], found["noise"])
    return found


def make_scheduler():
    write_json("scheduler", list(scheduler_tables()))
    save_file({k: v.contiguous().clone() for k, v in scheduler_steps().items()}, f"{OUT}/scheduler_steps.safetensors")


# --- random numbers --------------------------------------------------------------------------------------------

def fingerprint(values):
    """First and last values and the SHA-256 of the little-endian bytes."""
    data = values.contiguous().view(torch.uint8).numpy().tobytes()
    flat = values.float().flatten().tolist()
    return {"first": flat[:8], "last": flat[-4:], "sha256": hashlib.sha256(data).hexdigest()}


def make_random():
    records = []
    for seed in (0, 1, 42, 1234567890, 2**32 - 1, 2**32 + 5):
        for size in (1, 2, 15, 16, 17, 31, 32, 100, 1000, 262144):
            for kind, draw in (("randn", torch.randn), ("rand", torch.rand)):
                values = draw(size, generator=torch.Generator().manual_seed(seed))
                records.append({"kind": kind, "seed": seed, "sizes": [size], **fingerprint(values)})
    # Several draws from one generator: small draws keep a spare value.
    for kind, draw in (("randn", torch.randn), ("rand", torch.rand)):
        for sizes in ([3, 4], [3, 16, 4], [17, 5, 17], [1, 1, 1, 20, 1], [16, 16], [100, 7, 100, 7]):
            generator = torch.Generator().manual_seed(7)
            values = torch.cat([draw(size, generator=generator) for size in sizes])
            records.append({"kind": kind, "seed": 7, "sizes": sizes, **fingerprint(values)})
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        for size in (4, 64, 100):
            values = torch.randn(size, generator=torch.Generator().manual_seed(3), dtype=dtype)
            records.append({"kind": "randn", "dtype": str(dtype)[6:], "seed": 3, "sizes": [size], **fingerprint(values)})
    write_json("random", records)


# --- VAE and transformer ---------------------------------------------------------------------------------------

def vae_case(name, image_shape, tiled=False):
    """encode and decode of one committed VAE."""
    vae = AutoencoderKL.from_pretrained(f"{tiny.HERE}/pipelines/{name}/vae", torch_dtype=torch.float32).eval()
    if tiled:
        vae.enable_tiling()
    image = torch.rand(image_shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
    posterior = vae.encode(image).latent_dist
    latents = drawn(6, *posterior.mean.shape)
    prefix = f"{name}.tiled." if tiled else f"{name}."
    sample = posterior.sample(generator=torch.Generator().manual_seed(8))
    found = {"image": image, "mean": posterior.mean, "logvar": posterior.logvar, "std": posterior.std,
             "sample_seed_8": sample, "latents": latents, "decoded": vae.decode(latents).sample}
    return {prefix + key: value.contiguous().clone() for key, value in found.items()}


def make_vae():
    found = vae_case("schnell", (1, 3, 16, 24)) | vae_case("flux_vae", (2, 3, 32, 16))
    found |= vae_case("no_vae_attention", (1, 3, 20, 12)) | vae_case("tiny_random_style", (1, 3, 8, 5))
    found |= vae_case("flux_vae", (1, 3, 48, 56), tiled=True)
    save_file(found, f"{OUT}/vae.safetensors")


def make_transformer():
    """A transformer whose input is wider than its output (as in Fill), with its own checkpoint folder."""
    model = tiny.transformer(seed=40, in_channels=20, out_channels=8, heads=1, guidance=True)
    folder = f"{OUT}/transformer_wide_input"
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(torch.float32)
    ids = torch.tensor([[0, y, x] for y in range(3) for x in range(4)]).float()
    inputs = {"hidden_states": drawn(1, 2, 12, 20), "encoder_hidden_states": drawn(2, 2, 9, 32),
              "pooled_projections": drawn(3, 2, 32), "timestep": torch.tensor([0.75, 0.1]),
              "guidance": torch.tensor([3.5, 1.0]), "img_ids": ids, "txt_ids": torch.zeros(9, 3)}
    velocity = model(**inputs, return_dict=False)[0]
    save_file({**inputs, "velocity": velocity.contiguous()}, f"{folder}/golden.safetensors")


# --- tokenizers ------------------------------------------------------------------------------------------------

TEXTS = [
    "", " ", "   ", "a", "A", "a red star above a blue house on a white background",
    "An Orange FISH left of a TEAL moon at sunset.", "A drawing of a purple cross, on the left!", "red  star", " red star ",
    "\tred\tstar\n", "red\r\nstar", "red\u00a0star", "red\u3000star", "zero\u200bwidth", "soft\u00adhyphen", "bom\ufeffhere",
    "don't we'll they're I'm you've he'd it's 'tis", "rock'n'roll", "3.14159 1,000 2nd 4x4", "½ ① ﬁ ² Ⅷ", "٣ ४ 五",
    "Ünïcödé — “quotes” …", "U\u0308ni\u0308 (combining)", "Straße ẞ", "İstanbul ıI", "ΟΔΥΣΣΕΥΣ ς", "日本語 のテスト", "한국어",
    "한국어", "العربية", "עברית", "हिन्दी क्षि", "ไทย", "😀", "a 😀 face 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪", "👍🏽 star", "a\u0301e\u0301",
    "<|startoftext|> a star", "a star<|endoftext|>a moon", "<|endoftext|>", "<|ENDOFTEXT|>", "<pad> star", "star</s>", "</s>",
    "<unk>", " <pad> ", "<extra_id_0> star", "▁star ▁▁ moon", "a_b-c/d\\e", "!!!???...", "#$%&*+=@^`|~", "[({<>})]",
    "http://example.org/a?b=c&d=1", "CamelCaseWords", "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a red star " * 12, "star\u0000null", "\u0001\u0002control\u007f", "x" * 300, "\U0001f600\ufe0f\u20e3 1\ufe0f\u20e3", "ＦＵＬＬ ｗｉｄｔｈ",
    "ﷺ", "e\u0323\u0302 ệ", "\u0344 \u0958", "a\u2028b\u2029c", "\u1680ogham\u205fspace", "tail space ", "tail spaces    ",
]


def t5_from_file():
    """tokenizer.json exactly as it stands, with the special tokens matched before anything else.

    T5TokenizerFast of transformers 5 reads only the pieces from the file: no normalizer, and its own whitespace split.
    Where that gives other ids, the record says so as t5_transformers.
    """
    tokenizer = Tokenizer.from_file(f"{tiny.DEMO}/tokenizer_2/tokenizer.json")
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return tokenizer


def t5_padded(ids, length):
    """Cut to `length` keeping the end token, or filled with pad."""
    return ids[:length - 1] + [1] if len(ids) > length else ids + [0] * (length - len(ids))


def make_tokenizers():
    clip = CLIPTokenizer.from_pretrained(f"{tiny.DEMO}/tokenizer")
    t5_class, t5_file = T5TokenizerFast.from_pretrained(f"{tiny.DEMO}/tokenizer_2"), t5_from_file()
    records = []
    for text in TEXTS:
        ids, class_ids = t5_file.encode(text).ids, t5_class(text).input_ids
        records.append({"text": text, "clip": clip(text).input_ids,
                        "clip_77": clip(text, max_length=77, padding="max_length", truncation=True).input_ids,
                        "t5": ids, "t5_16": t5_padded(ids, 16),
                        **({} if ids == class_ids else {"t5_transformers": class_ids})})
    write_json("tokenizers", records)


MAKERS = {"scheduler": make_scheduler, "random": make_random, "vae": make_vae, "transformer": make_transformer,
          "tokenizers": make_tokenizers}


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    os.makedirs(OUT, exist_ok=True)
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()
        print(name)


if __name__ == "__main__":
    main()
