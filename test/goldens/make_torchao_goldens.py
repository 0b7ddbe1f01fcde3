"""Goldens of torchao: `current` with torchao 0.18 (and Diffusers), `legacy` with torchao 0.13, the last with fpx and uintx.

python make_torchao_goldens.py current|legacy     (each in an environment with that version)
python make_torchao_goldens.py int4 PYTORCH       (as `current`, with a checkout of PyTorch's source)
Writes torchao.json, torchao_legacy.json or torchao_int4.json: the first 24 digits of the SHA-256 of every
tensor that the library makes of quantizer_inputs.

`int4` makes the packings that torchao has for GPUs only. Its own code runs on the CPU, but for the op that lays codes
out: that is PyTorch's CUDA kernel (tinygemm_kernel.py), and for XPU the four bytes of a word as they are, which is all
that WeightInt4PackKernel.cpp of torch-xpu-ops does. So HQQ computes in float32 here, where CUDA takes float16.
"""

import functools
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


def use_plain_int4():
    int4 = importlib.import_module("torchao.quantization.quantize_.workflows.int4.int4_tensor")
    int4.int4_row_quantize_zp, int4.pack_int4 = int4_row_quantize_zp, pack_int4


def current():
    from torchao.quantization import (Float8WeightOnlyConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig,
                                      IntxWeightOnlyConfig, PerAxis, PerGroup, PerTensor, quantize_)
    from torchao.core.config import config_to_dict
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization.quant_primitives import MappingType
    use_plain_int4()
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


@functools.cache
def use_gpu_packings(pytorch):
    import inspect

    import tinygemm_kernel
    plain32 = importlib.import_module("torchao.quantization.quantize_.workflows.int4.int4_plain_int32_tensor")
    tiles = tinygemm_kernel.register(pytorch)
    torch.cuda.get_device_capability = lambda *_: (8, 0)
    as_words = {"_convert_weight_to_int4pack(": "PACK(", '"xpu"': '"cpu"', "torch.ops.aten.PACK(": "PACK("}
    text = inspect.getsource(plain32._from_hp_xpu)
    for found, other in as_words.items():
        text = text.replace(found, other)
    plain32.PACK = lambda weight, _: weight.view(torch.int32)
    exec(text, plain32.__dict__)
    plain32.Int4PlainInt32Tensor.from_hp = classmethod(plain32._from_hp_xpu)
    return tiles


def int4(pytorch):
    from torchao.core.config import config_to_dict
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Int4WeightOnlyConfig, quantize_
    from torchao.quantization.quantize_.workflows import Int4ChooseQParamsAlgorithm, Int4PackingFormat
    use_gpu_packings(pytorch)
    schemes = {}
    for size in (128, 32):
        packed = {"group_size": size, "int4_packing_format": Int4PackingFormat.TILE_PACKED_TO_4D}
        schemes[f"tile_packed_{size}"] = Int4WeightOnlyConfig(**packed)
        schemes[f"hqq_{size}"] = Int4WeightOnlyConfig(**packed,
                                                      int4_choose_qparams_algorithm=Int4ChooseQParamsAlgorithm.HQQ)
        schemes[f"plain_int32_{size}"] = Int4WeightOnlyConfig(group_size=size, int4_packing_format=Int4PackingFormat.PLAIN_INT32)
    cases, headers = [], {}
    for source, weight in typed_inputs().items():
        for name, config in schemes.items():
            half = weight.dtype == torch.bfloat16 or (weight.dtype == torch.float16 and name.startswith("plain"))
            if not half or weight.shape[1] % config.group_size:
                continue
            model = linear_of(weight)
            quantize_(model, config)
            tensors, metadata = flatten_tensor_state_dict(model.state_dict())
            if source == "normal.bfloat16":
                headers[name] = metadata["0.weight"]
            cases.append({"input": source, "scheme": name,
                          "sha256": {key.removeprefix("0._weight_"): sha256(value) for key, value in tensors.items()}})
    configs = {name: config_to_dict(config) for name, config in schemes.items()}
    # HQQ takes the power 0.7 - 1 of errors, and the last bit of each counts.
    bases = torch.tensor([(i * 7919 % 20011 + 1) / 4096 * 2.0 ** -(i % 40) for i in range(4096)])
    powers = sha256(torch.pow(bases, 0.7 - 1))
    write("torchao_int4", {"configs": configs, "headers": headers, "powers": powers, "cases": cases})


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
    {"current": current, "legacy": legacy, "int4": int4}[sys.argv[1]](*sys.argv[2:])
