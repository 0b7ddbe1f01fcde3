"""Load a bitsandbytes checkpoint written by halftone with the real libraries and compare every weight.

usage: check_bitsandbytes_roundtrip.py FOLDER [REFERENCE]

FOLDER is a pipeline folder or a single component. REFERENCE is the same model, either unquantized (each weight is then
quantized here by bitsandbytes) or quantized by the libraries (the stored tensors are then compared byte for byte).
Without REFERENCE the check is that the libraries load FOLDER and that every weight is finite.
Prints one line per component; exits with 1 when anything differs.
"""
import glob
import json
import logging
import os
import sys
from unittest import mock

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch

with mock.patch("ctypes.cdll.LoadLibrary", side_effect=OSError("the portable torch code is the reference")):
    import bitsandbytes as bnb
import bitsandbytes.functional as bnb_functional
import diffusers
import transformers
from diffusers.quantizers.bitsandbytes import bnb_quantizer
from safetensors.torch import load_file


def allow_cpu():
    """Diffusers refuses bitsandbytes without a GPU, although bitsandbytes itself works on the CPU."""
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        quantizer.validate_environment = lambda self, *positional, **named: None
        quantizer.update_device_map = lambda self, device_map: {"": "cpu"}


def read_config(folder):
    path = os.path.join(folder, "config.json")
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def components(folder):
    """Relative paths of the model folders in `folder`: ['.'] for a single component."""
    if read_config(folder):
        return ["."]
    return sorted(name for name in os.listdir(folder) if is_model(read_config(os.path.join(folder, name))))


def is_model(config):
    return "_class_name" in config or "architectures" in config


def load_model(folder):
    """The model through its own library, weights kept in their stored types."""
    config = read_config(folder)
    if "_class_name" in config:
        return getattr(diffusers, config["_class_name"]).from_pretrained(folder, torch_dtype=torch.bfloat16)
    return getattr(transformers, config["architectures"][0]).from_pretrained(folder, dtype=torch.bfloat16)


def load_tensors(folder):
    """All stored tensors of a component, whatever the number of files."""
    tensors = {}
    for file in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        tensors |= load_file(file)
    return tensors


def dequantized(module):
    """The weight of a quantized linear layer as the library reads it, or None for another module."""
    if isinstance(module, bnb.nn.Linear4bit):
        return bnb_functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    if isinstance(module, bnb.nn.Linear8bitLt):
        scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
        return torch.ops.bitsandbytes.int8_vectorwise_dequant(module.weight.data, scale)
    return None


def quantized_entries(name, source, module):
    """State-dict entries which bitsandbytes makes from the unquantized weight, and their values read back."""
    if isinstance(module, bnb.nn.Linear8bitLt):
        codes, scale, _ = bnb_functional.int8_vectorwise_quant(source.half())
        base = name.removesuffix(".weight")
        return {name: codes, f"{base}.SCB": scale}, torch.ops.bitsandbytes.int8_vectorwise_dequant(codes, scale)
    state = module.weight.quant_state
    packed, made = bnb_functional.quantize_4bit(
        source.to(state.dtype), blocksize=state.blocksize, compress_statistics=state.nested,
        quant_type=state.quant_type)
    entries = {f"{name}.{key}": value for key, value in made.as_dict(packed=True).items()}
    return {name: packed, **entries}, bnb_functional.dequantize_4bit(packed, made)


def same(a, b):
    """Equal bytes, type and shape."""
    return a is not None and b is not None and a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


class Report:
    def __init__(self):
        self.equal, self.different = 0, []

    def compare(self, what, a, b):
        if same(a, b):
            self.equal += 1
        else:
            self.different.append(what)


def check_layers(stored, quantized, reference, reference_quantized, report):
    """Every quantized layer: stored entries and values read back."""
    for module_name, module in quantized.items():
        name = f"{module_name}.weight"
        values = dequantized(module)
        if not values.isfinite().all():
            report.different.append(f"{name} is not finite")
        elif reference is None:
            report.equal += 1
        elif not reference_quantized:
            entries, expected = quantized_entries(name, reference[name], module)
            report.compare(f"{name} read back", values, expected)
            for key, value in entries.items():
                report.compare(key, stored.get(key), value)


def check_plain(stored, quantized, reference, reference_quantized, report):
    """Tensors outside quantized layers, or all stored tensors when the reference is quantized too."""
    prefixes = tuple(f"{name}." for name in quantized)
    for name, value in stored.items():
        if not reference_quantized and name.startswith(prefixes) and not name.endswith(".bias"):
            continue
        report.compare(name, value, reference.get(name))
    if reference_quantized:
        report.different += [f"{name} is missing" for name in reference if name not in stored]


def check_component(folder, reference_folder):
    """Number of equal items and the list of differing ones."""
    report = Report()
    stored, model = load_tensors(folder), load_model(folder)
    quantized = {name: module for name, module in model.named_modules()
                 if isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt))}
    prefix = "text_model." if any(name.startswith("text_model.") for name in stored) else ""
    quantized = {name if name.startswith(prefix) else prefix + name: module for name, module in quantized.items()}
    reference = load_tensors(reference_folder) if reference_folder else None
    reference_quantized = bool(reference_folder) and "quantization_config" in read_config(reference_folder)
    check_layers(stored, quantized, reference, reference_quantized, report)
    if reference is not None:
        check_plain(stored, quantized, reference, reference_quantized, report)
    return len(quantized), report


def main():
    folder, reference = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    allow_cpu()
    failed = False
    for name in components(folder):
        layers, report = check_component(os.path.join(folder, name), reference and os.path.join(reference, name))
        print(f"{name}: {layers} quantized layers, {report.equal} items equal, {len(report.different)} different")
        for item in report.different[:20]:
            print("  differs:", item)
        failed |= bool(report.different)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    with torch.no_grad():
        main()
