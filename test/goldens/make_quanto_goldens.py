"""Goldens of optimum-quanto 0.2.7: python make_quanto_goldens.py writes quanto.json.

Hashes (their first 24 digits) of every tensor that a frozen QLinear saves of quantizer_inputs, of the weight it
dequantizes to, and of a tiny transformer that Diffusers quantized and saved.
"""

import hashlib
import json
import tempfile

import torch
from optimum.quanto import QLinear, qfloat8, qint2, qint4, qint8
from optimum.quanto.tensor.weights import WeightQBitsTensor
from quantizer_inputs import HERE, typed_inputs

QTYPES = {"float8": qfloat8, "int8": qint8, "int4": qint4, "int2": qint2}


def plain(qtype, axis, group_size, size, stride, data, scale, shift, requires_grad=False):
    """Without the repacking for a CPU kernel, which bfloat16 weights get in memory and lose again when saved."""
    return WeightQBitsTensor(qtype, axis, group_size, size, stride, data, scale, shift, requires_grad)


WeightQBitsTensor.create = staticmethod(plain)


def sha256(tensor):
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:24]


def frozen(weight, qtype):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    quantized = QLinear.from_module(linear, weights=qtype)
    quantized.freeze()
    return quantized


def make_cases():
    cases = []
    for source, weight in typed_inputs().items():
        for name, qtype in QTYPES.items():
            layer = frozen(weight, qtype)
            state = layer.state_dict()
            hashes = {key: sha256(value) for key, value in state.items()}
            hashes["dequantized"] = sha256(layer.weight.dequantize())
            cases.append({"input": source, "scheme": name, "sha256": hashes})
            if source == "normal.bfloat16":
                print(name, {key: (value.dtype, list(value.shape)) for key, value in state.items()})
    return cases


def make_models():
    from diffusers import FluxTransformer2DModel, QuantoConfig
    from safetensors import safe_open
    found = {}
    for name in QTYPES:
        with tempfile.TemporaryDirectory() as folder:
            config = QuantoConfig(weights_dtype=name, modules_to_not_convert=["proj_out"])
            FluxTransformer2DModel.from_pretrained(f"{HERE}/pipelines/dev/transformer", quantization_config=config,
                                                   torch_dtype=torch.bfloat16).save_pretrained(folder)
            with safe_open(f"{folder}/diffusion_pytorch_model.safetensors", "pt") as file:
                tensors = {key: sha256(file.get_tensor(key)) for key in file.keys()}
                print(name, {key: list(file.get_tensor(key).shape) for key in list(file.keys())[:8]})
            with open(f"{folder}/config.json") as file:
                found[name] = {"sha256": tensors, "quantization_config": json.load(file)["quantization_config"]}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = ",\n".join(json.dumps(case) for case in make_cases())
    models = json.dumps(make_models())
    with open(f"{HERE}/quanto.json", "w") as file:
        file.write(f'{{"cases": [\n{cases}\n],\n"models": {models}}}\n')
