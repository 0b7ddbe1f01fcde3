"""Goldens of torchao: `current` with torchao 0.18 (and Diffusers), `legacy` with torchao 0.13, the last with fpx and uintx.

python make_torchao_goldens.py current|legacy     (each in an environment with that version)
Writes torchao.json or torchao_legacy.json: the first 24 digits of the SHA-256 of every
tensor that the library makes of quantizer_inputs.
"""

import hashlib
import importlib
import json
import sys
import tempfile

import torch
from quantizer_inputs import HERE, typed_inputs


def sha256(tensor):
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:24]


def linear_of(weight):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    return torch.nn.Sequential(linear)


# --- torchao's int4_row_quantize_zp and pack_int4 live in mslk, which needs a GPU to import; they are plain PyTorch:

def int4_row_quantize_zp(x, group_size=128):
    to_quant = x.reshape(-1, group_size).to(torch.float)
    max_val = to_quant.amax(dim=1, keepdim=True)
    min_val = to_quant.amin(dim=1, keepdim=True)
    scales = (max_val - min_val).clamp(min=1e-6) / 15
    zeros = min_val + scales * 8
    out = to_quant.sub(min_val).div(scales).round().clamp_(0, 15)
    out = (out - 8).to(dtype=torch.int8).reshape(x.shape)
    return out, scales.view(x.shape[0], -1).t().contiguous(), zeros.view(x.shape[0], -1).t().contiguous()


def pack_int4(x):
    low, high = x[:, ::2] & 0xF, x[:, 1::2] << 4
    return (low | high).contiguous()


def current():
    from torchao.quantization import (Float8WeightOnlyConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig,
                                      IntxWeightOnlyConfig, PerAxis, PerGroup, PerTensor, quantize_)
    from torchao.core.config import config_to_dict
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization.quant_primitives import MappingType
    int4 = importlib.import_module("torchao.quantization.quantize_.workflows.int4.int4_tensor")
    int4.int4_row_quantize_zp, int4.pack_int4 = int4_row_quantize_zp, pack_int4

    schemes = {
        "int8wo": Int8WeightOnlyConfig(), "int8wo_tensor": Int8WeightOnlyConfig(granularity=PerTensor()),
        "int8wo_group": Int8WeightOnlyConfig(granularity=PerGroup(64)),
        "float8wo_e4m3": Float8WeightOnlyConfig(),
        "float8wo_e5m2": Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2),
        "float8wo_e4m3_tensor": Float8WeightOnlyConfig(granularity=PerTensor()),
        "int4wo": Int4WeightOnlyConfig(), "int4wo_32": Int4WeightOnlyConfig(group_size=32),
    }
    for bits in range(1, 8):
        weight_dtype = getattr(torch, f"int{bits}")
        schemes[f"uint{bits}wo"] = IntxWeightOnlyConfig(
            weight_dtype=weight_dtype, granularity=PerGroup(64), mapping_type=MappingType.ASYMMETRIC)
        schemes[f"int{bits}_axis"] = IntxWeightOnlyConfig(weight_dtype=weight_dtype, granularity=PerAxis(0))
        if bits > 1:
            schemes[f"int{bits}_no_clipping"] = IntxWeightOnlyConfig(
                weight_dtype=weight_dtype, granularity=PerGroup(32),
                mapping_type=MappingType.SYMMETRIC_NO_CLIPPING_ERR)
    cases, headers = [], {}
    for source, weight in typed_inputs().items():
        for name, config in schemes.items():
            if name == "int4wo" and weight.shape[1] % 128:
                continue
            model = linear_of(weight)
            quantize_(model, config)
            tensors, metadata = flatten_tensor_state_dict(model.state_dict())
            if source == "normal.bfloat16":
                headers[name] = metadata["0.weight"]
            case = {"input": source, "scheme": name,
                    "sha256": {key.removeprefix("0._weight_"): sha256(value) for key, value in tensors.items()}}
            if not name.startswith("int4wo"):
                case["sha256"]["dequantized"] = sha256(model[0].weight.dequantize())
            cases.append(case)
    configs = {name: config_to_dict(config) for name, config in schemes.items()}
    write("torchao", {"configs": configs, "headers": headers, "cases": cases, "models": models(schemes)})


def models(schemes):
    """The tiny transformer, quantized and saved by Diffusers."""
    from diffusers import FluxTransformer2DModel, TorchAoConfig
    from safetensors import safe_open
    found = {}
    for name in ("int8wo", "float8wo_e4m3", "uint4wo"):
        with tempfile.TemporaryDirectory() as folder:
            config = TorchAoConfig(schemes[name], modules_to_not_convert=["proj_out", "x_embedder"])
            if name == "uint4wo":
                from torchao.quantization import IntxWeightOnlyConfig, PerAxis
                config = TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerAxis(0)))
            FluxTransformer2DModel.from_pretrained(f"{HERE}/pipelines/dev/transformer", quantization_config=config,
                                                   torch_dtype=torch.bfloat16).save_pretrained(folder)
            with safe_open(f"{folder}/diffusion_pytorch_model.safetensors", "pt") as file:
                tensors = {key: sha256(file.get_tensor(key)) for key in file.keys()}
                metadata = file.metadata()
            with open(f"{folder}/config.json") as file:
                config = json.load(file)["quantization_config"]
        found["int4_axis" if name == "uint4wo" else name] = {
            "sha256": tensors, "metadata": metadata, "quantization_config": config}
    return found


def legacy():
    from torchao.quantization import FPXWeightOnlyConfig, UIntXWeightOnlyConfig, quantize_
    from torchao.quantization.quant_primitives import (_choose_qparams_affine_floatx, _dequantize_affine_floatx,
                                                       _quantize_affine_floatx)
    assert FPXWeightOnlyConfig(3, 2)
    cases = []
    for source, weight in typed_inputs().items():
        for bits, (ebits, mbits) in {3: (1, 1), 4: (2, 1), 5: (2, 2), 6: (3, 2), 7: (3, 3)}.items():
            # What to_affine_quantized_fpx does before it permutes the codes for a GPU kernel.
            scale = _choose_qparams_affine_floatx(weight, ebits, mbits)
            codes = _quantize_affine_floatx(weight, scale, ebits, mbits)
            dequantized = _dequantize_affine_floatx(codes, scale, ebits, mbits, weight.dtype)
            cases.append({"input": source, "scheme": f"fp{bits}",
                          "sha256": {"codes": sha256(codes), "scale": sha256(scale), "dequantized": sha256(dequantized)}})
        for bits in range(1, 8):
            model = linear_of(weight)
            quantize_(model, UIntXWeightOnlyConfig(dtype=getattr(torch, f"uint{bits}")))
            codes, scale, zero_point = model[0].weight.tensor_impl.get_plain()
            cases.append({"input": source, "scheme": f"uint{bits}wo",
                          "sha256": {"codes": sha256(codes.to(torch.uint8)), "scale": sha256(scale),
                                     "zero_point": sha256(zero_point.to(torch.uint8)),
                                     "dequantized": sha256(model[0].weight.dequantize())}})
    write("torchao_legacy", {"cases": cases})


def write(name, content):
    with open(f"{HERE}/{name}.json", "w") as file:
        cases = ",\n".join(json.dumps(case) for case in content.pop("cases"))
        rest = "".join(f',\n"{key}": {json.dumps(value)}' for key, value in content.items())
        file.write(f'{{"cases": [\n{cases}\n]{rest}}}\n')


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"current": current, "legacy": legacy}[sys.argv[1]]()
