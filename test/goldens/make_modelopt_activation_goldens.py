"""Goldens of NVIDIA ModelOpt 0.47 with rounded activations: python make_modelopt_activation_goldens.py writes
modelopt_activations.json.

Of linear layers whose input quantizers were calibrated ("max") by a forward loop, or find their range at every run:
the keys of the state dict and the stored amax, the input rounded and brought back, and the output, in float32. And of
FP8 with many ranges: what becomes of the largest value, 448 / scale, as the scale's own rounding shows in it.
"""

import base64
import json

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.quantization.tensor_quant import fp8_eager
from quantizer_inputs import HERE, drawn, typed_inputs

SETTINGS = {"FP8": dict(num_bits=(4, 3)), "INT8": dict(num_bits=8), "INT4": dict(num_bits=4)}
CASES = {
    "FP8_FP8": (SETTINGS["FP8"], SETTINGS["FP8"]),
    "INT8_INT8": (dict(num_bits=8, axis=0), SETTINGS["INT8"]),
    "FP8_INT8": (SETTINGS["FP8"], SETTINGS["INT8"]),
    "INT8_INT4": (dict(num_bits=8, axis=0), SETTINGS["INT4"]),
}


def text(tensor):
    return base64.b64encode(tensor.detach().float().contiguous().numpy().tobytes()).decode()


def activations(seed):
    """x [6, 128] with large columns and a row of zeros."""
    x = drawn(seed, 6, 128)
    x[:, ::31] *= 7
    x[4] = 0
    return x


def layer(weight, weights, inputs, forward_loop):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()
    model = torch.nn.Sequential(linear)
    quantizers = [{"quantizer_name": "*", "enable": False},
                  {"quantizer_name": "*weight_quantizer", "enable": True, "cfg": weights},
                  {"quantizer_name": "*input_quantizer", "enable": True, "cfg": inputs}]
    mtq.quantize(model, {"quant_cfg": quantizers, "algorithm": "max"}, forward_loop)
    if forward_loop is None:  # no range was seen
        model[0].input_quantizer.reset_amax()
    mtq.compress(model)
    return model[0]


def main():
    weight = typed_inputs()["weights.float32"]
    calibration, x = [activations(seed) for seed in (31, 32)], activations(33) * 1.5
    found = {}
    for name, (weights, inputs) in CASES.items():
        for loop in (lambda model: [model(batch) for batch in calibration], None):
            made = layer(weight, weights, inputs, loop)
            state = made.state_dict()
            amax = state.get("input_quantizer._amax")
            found[name if loop else f"{name} dynamic"] = {
                "keys": list(state), "amax": None if amax is None else amax.item(),
                "amax_shape": None if amax is None else list(amax.shape),
                "rounded": text(made.input_quantizer(x)), "y": text(made(x)),
            }
    ranges = drawn(34, 64).abs()
    largest = torch.stack([fp8_eager(amax, amax) for amax in ranges])
    batches = [text(batch) for batch in calibration]
    with open(f"{HERE}/modelopt_activations.json", "w") as file:
        json.dump({"calibration": batches, "x": text(x), "layers": found,
                   "fp8_ranges": text(ranges), "fp8_largest": text(largest)}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
