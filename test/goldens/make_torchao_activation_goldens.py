"""Goldens of torchao 0.18's configs that round activations: torchao_activations.json.

python make_torchao_activation_goldens.py
Hashes of every tensor it makes of quantizer_inputs; its dictionaries and headers; x rounded and brought back, and the
outputs of linear layers, in float32; and the tiny transformer, quantized and saved by Diffusers.

torchao quantizes to float8 only where a GPU multiplies in it, though PyTorch's CPU code does too: that check is taken out.
"""

import base64
import json
import tempfile

import torch
from make_torchao_goldens import linear_of, sha256, write
from quantizer_inputs import HERE, drawn, typed_inputs
from torchao.core.config import config_to_dict
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import (Float8DynamicActivationFloat8WeightConfig, Int8DynamicActivationInt8WeightConfig,
                                  Int8DynamicActivationIntxWeightConfig, Int8StaticActivationInt8WeightConfig, PerAxis,
                                  PerGroup, PerRow, PerTensor, quant_api, quantize_)
from torchao.quantization.quant_primitives import MappingType
from torchao.quantization.quantize_.common import _choose_quant_func_and_quantize_tensor
from torchao.quantization.quantize_.workflows.intx import intx_unpacked_to_int8_tensor as intx

quant_api._check_hardware_support = lambda granularity: None


def schemes():
    static = {"granularity": [PerTensor(), PerRow()]}
    return {
        "int8dq": Int8DynamicActivationInt8WeightConfig(),
        "int8dq_asymmetric": Int8DynamicActivationInt8WeightConfig(act_mapping_type=MappingType.ASYMMETRIC),
        "int8dq_tensor": Int8DynamicActivationInt8WeightConfig(granularity=PerTensor()),
        "int8dq_row_tensor": Int8DynamicActivationInt8WeightConfig(granularity=[PerRow(), PerTensor()]),
        "int8dq_reduced": Int8DynamicActivationInt8WeightConfig(reduce_range=True),
        "int4dq": Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32)),
        "int8dq_intx": Int8DynamicActivationIntxWeightConfig(),
        "int3dq_axis": Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int3, weight_granularity=PerAxis(0), weight_mapping_type=MappingType.ASYMMETRIC),
        "float8dq": Float8DynamicActivationFloat8WeightConfig(),
        "float8dq_e4m3_row": Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()),
        "float8dq_e5m2": Float8DynamicActivationFloat8WeightConfig(
            activation_dtype=torch.float8_e5m2, weight_dtype=torch.float8_e5m2),
        "float8dq_bounded": Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), activation_value_lb=4.5),
        "int8static": Int8StaticActivationInt8WeightConfig(act_quant_scale=torch.tensor([[0.03]]), **static),
        "int8static_asymmetric": Int8StaticActivationInt8WeightConfig(
            act_quant_scale=torch.tensor([[0.02]]), act_quant_zero_point=torch.tensor([[-31]], dtype=torch.int8),
            act_mapping_type=MappingType.ASYMMETRIC, **static),
    }


def refuses(config, weight):
    """PerRow float8 wants bfloat16 weights; torchao leaves sizes that 16 does not divide alone."""
    if not isinstance(config, Float8DynamicActivationFloat8WeightConfig):
        return False
    by_row = isinstance(config.granularity[1], PerRow)
    return (by_row and weight.dtype != torch.bfloat16) or any(size % 16 for size in weight.shape)


def quantized(weight, config):
    model = linear_of(weight)
    quantize_(model, config)
    return model


def text(tensor):
    return base64.b64encode(tensor.detach().float().contiguous().numpy().tobytes()).decode()


def tensors():
    cases, headers = [], {}
    for source, weight in typed_inputs().items():
        if source.split(".")[0] not in ("weights", "mixed", "narrow"):
            continue  # weights are rounded as in the weight-only formats, of which torchao.json has all inputs
        for name, config in schemes().items():
            if refuses(config, weight):
                continue
            flat, metadata = flatten_tensor_state_dict(quantized(weight, config).state_dict())
            if source == "weights.bfloat16":
                headers[name] = metadata["0.weight"]
            hashes = {key.removeprefix("0._weight_"): sha256(value) for key, value in flat.items()}
            cases.append({"input": source, "scheme": name, "sha256": hashes})
    return cases, headers


def activations():
    """x [6, 128]: normal, with large columns, a row of small values, one of zeros, and one without negative values."""
    x = drawn(20, 6, 128)
    x[:, ::31] *= 40
    x[3] *= 1e-4
    x[4] = 0
    x[5] = x[5].abs()
    return x


def rounded(x, weight):
    """What the layer sees of x."""
    if isinstance(weight, intx.IntxUnpackedToInt8Tensor):
        return intx._apply_int8_act_asym_per_token_quant_dequant(x)
    scales = {"scale": weight.act_quant_scale, "zero_point": weight.act_quant_zero_point} \
        if hasattr(weight, "act_quant_scale") else {}
    return _choose_quant_func_and_quantize_tensor(x, weight.act_quant_kwargs, **scales).dequantize()


def outputs():
    x, found = activations(), {}
    for name, config in schemes().items():
        by_row = isinstance(config, Float8DynamicActivationFloat8WeightConfig) and isinstance(
            config.granularity[1], PerRow)
        source = "weights.bfloat16" if by_row else "weights.float32"
        model = quantized(typed_inputs()[source], config)
        found[name] = {"input": source, "rounded": text(rounded(x, model[0].weight)), "y": text(model(x))}
    return {"x": text(x), "layers": found}


def models():
    from diffusers import FluxTransformer2DModel, TorchAoConfig
    from safetensors import safe_open
    found = {}
    for name in ("int8dq", "int4dq", "float8dq"):
        with tempfile.TemporaryDirectory() as folder:
            config = schemes()[name]
            if name == "int4dq":
                config = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerAxis(0))
            config = TorchAoConfig(config, modules_to_not_convert=["proj_out", "x_embedder"])
            FluxTransformer2DModel.from_pretrained(f"{HERE}/pipelines/dev/transformer", quantization_config=config,
                                                   torch_dtype=torch.bfloat16).save_pretrained(folder)
            with safe_open(f"{folder}/diffusion_pytorch_model.safetensors", "pt") as file:
                hashes = {key: sha256(file.get_tensor(key)) for key in file.keys()}
                metadata = file.metadata()
            with open(f"{folder}/config.json") as file:
                found[name] = {"sha256": hashes, "metadata": metadata,
                               "quantization_config": json.load(file)["quantization_config"]}
    return found


def configs():
    """Of static ones torchao cannot write the scale."""
    return {name: config_to_dict(config) for name, config in schemes().items() if "static" not in name}


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases, headers = tensors()
    write("torchao_activations", {"cases": cases, "headers": headers, "configs": configs(), "outputs": outputs(),
                                  "models": models()})
