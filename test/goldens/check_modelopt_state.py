"""Loads folders that halftone saved in ModelOpt's formats with Diffusers and ModelOpt, and prints what is equal.

python check_modelopt_state.py [--formats A,B] [--deno "deno run -A"]

- loaded: `halftone quantize` of the demo model's transformer, loaded by from_pretrained; tensors equal to the file's.
- weights: what ModelOpt's quantizers dequantize, equal to what `halftone dequantize` makes of the same folder.
- forward: ModelOpt's velocity equals that of Diffusers with those dequantized weights, bit by bit (weight-only formats).
- again: the library's own save of it, read and written by halftone (rewrite_checkpoint.ts) and loaded again; equal tensors.

Then the other way round, with input ranges that ModelOpt calibrated: its save, through halftone, loaded again. The state
files are read with torch.load(weights_only=True). NF4 fails in ModelOpt itself where it computes; the error is printed.
Exits with 1 when anything differs.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import modelopt.torch.opt as mto
import modelopt.torch.quantization as mtq
import torch
from check_formats import DEMO, FILE, Halftone, same
from check_formats_libraries import loaded_by_diffusers
from diffusers import FluxTransformer2DModel
from modelopt.torch.quantization.qtensor import QTensorWrapper
from safetensors.torch import load_file

CALIBRATED = {"FP8_FP8": (dict(num_bits=(4, 3)), dict(num_bits=(4, 3))),
              "INT8_INT8": (dict(num_bits=8, axis=0), dict(num_bits=8))}


def velocity(model):
    config, drawn = model.config, torch.Generator().manual_seed(7)
    rows = lambda *shape: torch.randn(*shape, generator=drawn).bfloat16()
    return model(hidden_states=rows(1, 16, config.in_channels), encoder_hidden_states=rows(1, 8, config.joint_attention_dim),
                 pooled_projections=rows(1, config.pooled_projection_dim), timestep=torch.tensor([0.5]).bfloat16(),
                 guidance=torch.tensor([3.5]).bfloat16() if config.guidance_embeds else None,
                 img_ids=torch.zeros(16, 3), txt_ids=torch.zeros(8, 3), return_dict=False)[0]


def counted(expected, found):
    equal = sum(same(found.get(name), value) for name, value in expected.items())
    return f"{equal}/{len(expected)}", equal == len(expected) == len(found)


def dequantized(model):
    return {f"{name}.weight": module.weight_quantizer(module.weight) for name, module in model.named_modules()
            if isinstance(getattr(module, "weight", None), QTensorWrapper)}


def attempt(make, name):
    """A column and whether it holds; ModelOpt cannot dequantize NF4 with more than one block of scales, its own included."""
    try:
        return make()
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}".splitlines()[0], name.endswith("nf4") and "must match" in str(error)


def checked(name, halftone, folder):
    made, dense, again, rewritten = (f"{folder}/{part}" for part in ("made", "dense", "again", "rewritten"))
    halftone.quantize(DEMO, made, name)
    halftone.run("cli/main.ts", "dequantize", made, dense)
    torch.load(f"{made}/modelopt_state.pth", weights_only=True)
    model = loaded_by_diffusers(made, name)
    plain = load_file(f"{dense}/{FILE}")

    def weights():
        ours = dequantized(model)
        return counted({name: plain[name] for name in ours}, ours)

    def forward():
        if "_" in name:
            return "", True
        reference = FluxTransformer2DModel.from_pretrained(dense, torch_dtype=torch.bfloat16)
        holds = same(velocity(model), velocity(reference))
        return "equal" if holds else "differs", holds

    def reloaded():
        with contextlib.redirect_stdout(io.StringIO()):
            model.save_pretrained(again)
        halftone.rewrite(again, rewritten)
        return counted(load_file(f"{again}/{FILE}"), loaded_by_diffusers(rewritten, name).state_dict())

    return [counted(load_file(f"{made}/{FILE}"), model.state_dict()), attempt(weights, name),
            attempt(forward, name), reloaded()]


def calibrated(name, halftone, folder):
    made, rewritten = f"{folder}/made", f"{folder}/rewritten"
    weights, inputs = CALIBRATED[name]
    model = FluxTransformer2DModel.from_pretrained(DEMO, torch_dtype=torch.bfloat16)
    quantizers = [{"quantizer_name": "*", "enable": False},
                  {"quantizer_name": "*weight_quantizer", "enable": True, "cfg": weights},
                  {"quantizer_name": "*input_quantizer", "enable": True, "cfg": inputs},
                  {"quantizer_name": "*norm*", "enable": False}, {"quantizer_name": "*proj_out.*", "enable": False}]
    with contextlib.redirect_stdout(io.StringIO()):
        mtq.quantize(model, {"quant_cfg": quantizers, "algorithm": "max"}, velocity)
        mtq.compress(model)
        model.save_pretrained(made)
    halftone.rewrite(made, rewritten)
    again = loaded_by_diffusers(rewritten, "modelopt")
    ranges = sum(key.endswith("input_quantizer._amax") for key in again.state_dict())
    column, holds = counted(load_file(f"{made}/{FILE}"), again.state_dict())
    equal = same(velocity(model), velocity(again))
    return [(column, holds), (f"{ranges} input ranges", ranges > 0), ("equal" if equal else "differs", equal)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--formats")
    parser.add_argument("--deno", default="deno run -A --no-check")
    options = parser.parse_args()
    halftone = Halftone(options.deno)
    names = options.formats.split(",") if options.formats else [
        name for name in halftone.formats() if name.startswith("modelopt:")]
    with contextlib.redirect_stdout(io.StringIO()):
        mto.enable_huggingface_checkpointing()
    jobs = [(name, checked) for name in names] + [(name, calibrated) for name in CALIBRATED]
    fine = True
    for name, job in jobs:
        if job is calibrated and name == next(iter(CALIBRATED)):
            print("\n| calibrated by ModelOpt | tensors | ranges | forward |\n| --- | --- | --- | --- |")
        elif name == names[0]:
            print("| format | loaded | weights | forward | again |\n| --- | --- | --- | --- | --- |")
        with tempfile.TemporaryDirectory() as folder:
            columns = job(name, halftone, folder)
        print(f"| `{name}` | " + " | ".join(text for text, _ in columns) + " |", flush=True)
        fine = fine and all(holds for _, holds in columns)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    with torch.no_grad():
        main()
