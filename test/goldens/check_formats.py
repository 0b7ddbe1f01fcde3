"""Compares what halftone makes of weights with what the libraries make, format by format, and prints the counts.

python check_formats.py [--formats A,B] [--pytorch FOLDER] [--deno "deno run -A"]

- cells: `halftone quantize` of quantizer_inputs and of every matrix of the demo model's transformer, in one file; beside it
  the library's own tensors of each, byte by byte. "NaN" counts tensors in which the library itself stores NaN (it divides
  0 by 0 where a group is all zeros; halftone stores zeros).
- Diffusers: `halftone quantize` of the demo model's transformer, loaded by Diffusers and saved again: equal tensors.
- halftone: what Diffusers saved, read into halftone's layout and written again (rewrite_checkpoint.ts): equal tensors.

FOLDER is a checkout of PyTorch's source, for torchao's tile-packed int4 (see tinygemm_kernel.py). Exits with 1 when
anything differs.
"""

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
from check_formats_libraries import LIBRARIES, loaded_by_diffusers
from quantizer_inputs import HERE, typed_inputs
from safetensors.torch import load_file, save_file

ROOT = os.path.dirname(os.path.dirname(HERE))
DEMO = f"{ROOT}/models/demo/transformer"
FILE = "diffusion_pytorch_model.safetensors"
METHODS = ("bitsandbytes", "torchao", "quanto", "layerwise", "modelopt")
KINDS = [*dict.fromkeys(name.split(".")[0] for name in typed_inputs()), "demo"]


def cells():
    """Neutral names, because "normal" is one that layerwise casting skips: name -> (kind, matrix)."""
    named = [(name.split(".")[0], value.contiguous()) for name, value in typed_inputs().items()]
    demo = [("demo", value) for value in load_file(f"{DEMO}/{FILE}").values() if value.dim() == 2]
    return {f"m{index}.weight": cell for index, cell in enumerate(named + demo)}


class Halftone:
    def __init__(self, command):
        self.command = shlex.split(command)

    def run(self, *words):
        result = subprocess.run([*self.command, *words], cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(result.stderr.strip().splitlines()[-1])
        return result.stdout

    def formats(self):
        return [row["name"] for row in json.loads(self.run("cli/main.ts", "formats", "--json"))["formats"]]

    def quantize(self, source, destination, name):
        self.run("cli/main.ts", "quantize", source, destination, "--quantize", name)

    def rewrite(self, folder, file):
        self.run("test/goldens/rewrite_checkpoint.ts", folder, file)


def same(a, b):
    return a is not None and a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


def has_nan(tensors):
    return any(value.is_floating_point() and value.float().isnan().any() for value in tensors.values())


def compare_cells(inputs, found, make):
    """Per kind of input: equal tensors, all tensors, and those of weights in which the library has NaN."""
    equal, total, nan, wrong = Counter(), Counter(), Counter(), []
    for name, (kind, weight) in inputs.items():
        module = name.removesuffix(".weight")
        expected = make(weight)
        if expected is None:  # the library refuses such a weight, or leaves it alone
            continue
        if has_nan(expected):
            nan[kind] += len(expected)
            continue
        for suffix, value in expected.items():
            total[kind] += 1
            equal[kind] += same(found.get(f"{module}.{suffix}"), value)
            if not same(found.get(f"{module}.{suffix}"), value):
                wrong.append(f"{kind} {weight.dtype} {name} {suffix}")
    return equal, total, nan, wrong


def count_same(expected, found):
    equal = sum(same(found.get(name), value) for name, value in expected.items())
    return f"{equal}/{len(expected)}", equal == len(expected) == len(found)


def check_folder(name, halftone, folder):
    """[Diffusers' column, halftone's column] and whether both hold."""
    made, again, file = f"{folder}/made", f"{folder}/again", f"{folder}/rewritten.safetensors"
    halftone.quantize(DEMO, made, name)
    try:
        model = loaded_by_diffusers(made, name)
    except Exception as error:  # a library's refusal is part of the answer
        return ["no: " + str(error).splitlines()[0][:60], ""], True
    if model is None:
        return ["no", ""], True
    model.save_pretrained(again)
    saved = load_file(f"{again}/{FILE}")
    loaded, fine = count_same(load_file(f"{made}/{FILE}"), saved)
    halftone.rewrite(again, file)
    rewritten, also_fine = count_same(saved, load_file(file))
    return [loaded, rewritten], fine and also_fine


def check(name, inputs, source, halftone, options):
    with tempfile.TemporaryDirectory() as folder:
        made = f"{folder}/cells.safetensors"
        halftone.quantize(source, made, name)
        make = LIBRARIES[name.split(":")[0]](name.split(":")[1], options)
        if isinstance(make, str):
            columns, wrong = [make] + [""] * (len(KINDS) + 1), []
        else:
            equal, total, nan, wrong = compare_cells(inputs, load_file(made), make)
            columns = [f"{equal[kind]}/{total[kind]}" for kind in KINDS]
            columns += [f"{equal.total()}/{total.total()}", str(nan.total())]
        folders, fine = check_folder(name, halftone, folder)
    print("| " + " | ".join([f"`{name}`", *columns, *folders]) + " |", flush=True)
    for item in wrong[:5]:
        print("  differs:", item)
    return fine and not wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--formats")
    parser.add_argument("--pytorch")
    parser.add_argument("--deno", default="deno run -A --no-check")
    options = parser.parse_args()
    halftone = Halftone(options.deno)
    names = options.formats.split(",") if options.formats else [
        name for name in halftone.formats() if name.split(":")[0] in METHODS]
    inputs = cells()
    print("| format | " + " | ".join(KINDS) + " | all | NaN | Diffusers | halftone |")
    print("| --- " * (len(KINDS) + 5) + "|")
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/inputs.safetensors"
        save_file({name: weight for name, (_, weight) in inputs.items()}, source)
        results = [check(name, inputs, source, halftone, options) for name in names]
    print(f"{sum(results)} of {len(results)} formats without a difference")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with torch.no_grad():
        main()
