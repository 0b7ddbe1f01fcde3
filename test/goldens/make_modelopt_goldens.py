"""Goldens of NVIDIA ModelOpt 0.47: python make_modelopt_goldens.py writes modelopt.json.

Hashes (their first 24 digits) of every tensor in the state dict of a compressed linear layer, for quantizer_inputs, and
of the weight it dequantizes to; calibrated by "max", or by "mse" where the scheme says so.
(Diffusers 0.42 gives its quantizers a config that this version refuses, so the layers are made with ModelOpt itself,
from the same settings.)
"""

import hashlib
import json

import modelopt.torch.quantization as mtq
import torch
from quantizer_inputs import HERE, typed_inputs

SETTINGS = {
    "FP8": dict(num_bits=(4, 3)), "FP8.channel": dict(num_bits=(4, 3), axis=0),
    "FP8.block": dict(num_bits=(4, 3), block_sizes={-1: 64}),
    "FP8.mse": dict(num_bits=(4, 3)), "FP8.channel.mse": dict(num_bits=(4, 3), axis=0),
    "FP8.block.mse": dict(num_bits=(4, 3), block_sizes={-1: 64}),
    "INT8": dict(num_bits=8), "INT8.channel": dict(num_bits=8, axis=0),
    "INT8.block": dict(num_bits=8, block_sizes={-1: 64}),
    "INT4": dict(num_bits=4, block_sizes={-1: 64}),
    "NF4": dict(num_bits=4, block_sizes={-1: 64, "scale_bits": 8, "scale_block_sizes": {-1: 256}}),
    "NF4.small": dict(num_bits=4, block_sizes={-1: 32, "scale_bits": 8, "scale_block_sizes": {-1: 8}}),
    "NVFP4": dict(num_bits=(2, 1), block_sizes={-1: 16, "scale_bits": (4, 3), "scale_block_sizes": {-1: 8}}),
}


def sha256(tensor):
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:24]


def compressed(weight, settings, algorithm):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight.data = weight.clone()
    model = torch.nn.Sequential(linear)
    quantizers = [{"quantizer_name": "*", "enable": False},
                  {"quantizer_name": "*weight_quantizer", "enable": True, "cfg": settings}]
    mtq.quantize(model, {"quant_cfg": quantizers, "algorithm": algorithm})
    mtq.compress(model)
    return model[0]


def main():
    cases = []
    for source, weight in typed_inputs().items():
        for name, settings in SETTINGS.items():
            layer = compressed(weight, settings, "mse" if name.endswith(".mse") else "max")
            state = layer.state_dict()
            hashes = {key: sha256(value) for key, value in state.items()}
            try:
                hashes["dequantized"] = sha256(layer.weight_quantizer(layer.weight))
            except RuntimeError:  # ModelOpt broadcasts NF4's scales wrongly when there is more than one block of them
                assert name.startswith("NF4")
            cases.append({"input": source, "scheme": name, "sha256": hashes})
    with open(f"{HERE}/modelopt.json", "w") as file:
        lines = ",\n".join(json.dumps(case) for case in cases)
        file.write(f'{{"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
