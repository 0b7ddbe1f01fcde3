"""What the libraries make of a weight: for check_formats.py.

LIBRARIES[method](format, options) is a function from a matrix to the tensors that the library would save of a module
(suffix -> tensor, or None where it leaves the matrix alone), or a text that says why there is none.
"""

import contextlib
import io
import json
import os

import torch


def bitsandbytes(name, _):
    import bitsandbytes.functional as functional

    def four_bit(weight):
        packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=name.endswith("-dq"),
                                                 quant_type=name[:3])
        return {"weight": packed} | {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}

    def eight_bit(weight):
        codes, scale, _ = functional.int8_vectorwise_quant(weight.half())
        return {"weight": codes, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}

    return eight_bit if name == "int8" else four_bit


def linear_of(weight):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    return torch.nn.Sequential(linear)


def torchao_config(name):
    """What the format's name means, as Diffusers took it or as the config objects spell it."""
    from torchao.quantization import (Float8WeightOnlyConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig,
                                      IntxWeightOnlyConfig, PerGroup)
    from torchao.quantization.quant_primitives import MappingType
    if name.startswith("uint"):
        return IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{name[4]}"), granularity=PerGroup(64),
                                    mapping_type=MappingType.ASYMMETRIC)
    return {
        "int8wo": Int8WeightOnlyConfig, "int4wo": Int4WeightOnlyConfig, "float8wo_e4m3": Float8WeightOnlyConfig,
        "float8wo_e5m2": lambda: Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2),
        "int4wo_tile_packed_to_4d": lambda: Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d"),
        "int4wo_hqq": lambda: Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d",
                                                   int4_choose_qparams_algorithm="hqq"),
        "int4wo_plain_int32": lambda: Int4WeightOnlyConfig(int4_packing_format="plain_int32"),
    }.get(name, lambda: None)()


def torchao(name, options):
    import make_torchao_goldens
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import quantize_
    config = torchao_config(name)
    if config is None:
        return "torchao 0.18 has no such format"
    if "packed" in name or "hqq" in name or "int32" in name:
        if not options.pytorch:
            return "needs --pytorch"
        make_torchao_goldens.use_gpu_packings(options.pytorch)
    make_torchao_goldens.use_plain_int4()

    def make(weight):
        if weight.dtype != torch.bfloat16 and name.startswith("int4wo_"):
            return None  # the library's kernels take no other type
        model = linear_of(weight)
        quantize_(model, config)
        tensors, _ = flatten_tensor_state_dict(model.state_dict())
        return {key.removeprefix("0."): value for key, value in tensors.items()}

    return make


def quanto(name, _):
    from make_quanto_goldens import QTYPES, frozen

    def make(weight):
        return dict(frozen(weight, QTYPES[name]).state_dict())

    return make


def layerwise(name, _):
    return lambda weight: {"weight": weight.to(getattr(torch, name))}


def modelopt(name, _):
    from make_modelopt_goldens import SETTINGS, compressed
    settings = {"fp8": SETTINGS["FP8"], "int8": SETTINGS["INT8.channel"], "nf4": SETTINGS["NF4"],
                "int4": SETTINGS["INT4"] | {"block_sizes": {-1: 128}}, "nvfp4": SETTINGS["NVFP4"]}.get(name)
    if settings is None:
        return "made with another person's settings"

    def make(weight):
        if weight.shape[1] % settings.get("block_sizes", {}).get(-1, 1):
            return None  # it would pad the rows; halftone leaves such a weight dense
        with contextlib.redirect_stdout(io.StringIO()):  # it tells how many quantizers it inserted
            return dict(compressed(weight, settings, "max").state_dict())

    return make


LIBRARIES = {"bitsandbytes": bitsandbytes, "torchao": torchao, "quanto": quanto, "layerwise": layerwise,
             "modelopt": modelopt}


def loaded_by_diffusers(folder, name):
    """The transformer in a folder that halftone wrote, its tensors in the types that they are stored in."""
    from diffusers import FluxTransformer2DModel
    from make_bitsandbytes_goldens import allow_cpu
    allow_cpu()
    if name.startswith("modelopt"):
        import modelopt.torch.opt as mto
        with contextlib.redirect_stdout(io.StringIO()):
            mto.enable_huggingface_checkpointing()
            return FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.bfloat16, low_cpu_mem_usage=False)
    if name.startswith("layerwise"):
        # Diffusers widens the weights while loading, as it has no config for them, and casts them again when told to.
        model = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)
        model.enable_layerwise_casting(getattr(torch, name.split(":")[1]), torch.bfloat16)
        return model
    with open(os.path.join(folder, "config.json")) as file:
        assert "quantization_config" in json.load(file)
    return FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)
