"""Bytes and outputs of bitsandbytes -> bitsandbytes/.

The library's portable torch code is used, which follows its GPU kernels. Its native CPU library is kept from loading:
version 0.50.2 reads back wrong values when a row is not a multiple of the block, and picks other codes on near ties of
nested statistics.

usage: make_bitsandbytes_goldens.py [functional] [int8_matmul] [linear4bit] [models]
"""
import hashlib
import json
import logging
import os
import shutil
import sys
from unittest import mock

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch

with mock.patch("ctypes.cdll.LoadLibrary", side_effect=OSError("native library not wanted")):
    import bitsandbytes as bnb
import bitsandbytes.functional as bnb_functional
from bitsandbytes.autograd._functions import MatMul8bitLt, MatmulLtState
from diffusers import BitsAndBytesConfig as DiffusersConfig
from diffusers import FluxTransformer2DModel
from diffusers.quantizers.bitsandbytes import bnb_quantizer
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig as TransformersConfig
from transformers import T5EncoderModel

import tiny_models as tiny

OUT = os.path.join(tiny.HERE, "bitsandbytes")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_LIMIT = 4096  # larger tensors are only hashed


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def recipe(count):
    """Values both languages can compute exactly: multiples of 1/4096, every 97th one 16 times larger."""
    i = torch.arange(count, dtype=torch.int64)
    k = (i * 7919 + (i % 1009) ** 2 * 31) % 20011 - 10005
    return k.float() / 4096 * torch.where(i % 97 == 0, 16.0, 1.0)


def inputs():
    """name -> float32 tensor; each is then used in every source dtype."""
    heavy = drawn(12, 24, 80) * 0.02
    heavy[3, 7], heavy[11, 64], heavy[20] = 4.0, -9.5, heavy[20] * 50
    zero_blocks = drawn(13, 4, 128)
    zero_blocks[1], zero_blocks[2, :64], zero_blocks[3, 5] = 0, -0.0, 0
    return {
        "normal": drawn(11, 16, 64), "heavy": heavy, "zero_blocks": zero_blocks, "all_zero": torch.zeros(3, 64),
        "constant": torch.full((2, 64), 0.3), "negative_constant": torch.full((2, 33), -1.7),
        "tiny": drawn(14, 2, 96) * 1e-36, "small": drawn(15, 2, 96) * 1e-7, "huge": drawn(16, 2, 96) * 1e4,
        "odd_3x21": drawn(17, 3, 21), "odd_1x1": torch.tensor([[-0.25]]), "odd_7x65": drawn(18, 7, 65),
        "odd_130": drawn(19, 130), "grid": torch.linspace(-1, 1, 513).repeat(2)[:1024].view(4, 256),
        "recipe_256x384": recipe(256 * 384).view(256, 384), "recipe_40x1000": recipe(40000).view(40, 1000),
    }


def sha256(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


class Records:
    """Cases for the JSON file and the tensors they point to."""

    def __init__(self):
        self.cases, self.tensors = [], {}

    def add(self, case, outputs):
        """`outputs`: name -> tensor; hashed always, stored as CASE.NAME when small."""
        hashes = {}
        for name, tensor in outputs.items():
            hashes[name] = sha256(tensor)
            if tensor.numel() <= STORED_LIMIT:
                self.tensors[f"{case['name']}.{name}"] = tensor.contiguous().clone()
        self.cases.append({**case, "sha256": hashes})

    def write(self, name):
        os.makedirs(OUT, exist_ok=True)
        lines = ",\n".join(json.dumps(case) for case in self.cases)
        with open(f"{OUT}/{name}.json", "w") as file:
            file.write(f"[\n{lines}\n]\n")
        save_file(self.tensors, f"{OUT}/{name}.safetensors")


# --- quantize and dequantize -----------------------------------------------------------------------------------

def four_bit(name, x, quant_type, double, blocksize=64):
    """One quantize_4bit call: state-dict entries as the library serialises them, and the values read back."""
    packed, state = bnb_functional.quantize_4bit(
        x, blocksize=blocksize, compress_statistics=double, quant_type=quant_type)
    entries = state.as_dict(packed=True)
    key = f"quant_state.bitsandbytes__{quant_type}"
    description = bytes(entries.pop(key).tolist()).decode()
    restored = bnb_functional.dequantize_4bit(packed, state)
    case = {"name": name, "scheme": quant_type, "double_quant": double, "blocksize": blocksize,
            "quant_state": description}
    return case, {"weight": packed, **entries, "dequantized": restored}


def eight_bit(name, x):
    codes, scale, _ = bnb_functional.int8_vectorwise_quant(x.half())
    restored = torch.ops.bitsandbytes.int8_vectorwise_dequant(codes, scale)
    return {"name": name, "scheme": "int8"}, {"weight": codes, "SCB": scale, "dequantized": restored}


def make_functional():
    records = Records()
    for input_name, values in inputs().items():
        for dtype_name, dtype in DTYPES.items():
            x = values.to(dtype)
            if input_name == "huge" and not x.isfinite().all():
                continue
            source = f"{input_name}.{dtype_name}"
            made_by_recipe = input_name.startswith("recipe")
            if not made_by_recipe:
                records.tensors[f"{source}.input"] = x.clone()
            about = {"input": source, "dtype": dtype_name, "shape": list(x.shape), "recipe": made_by_recipe}
            for quant_type in ("nf4", "fp4"):
                for double in (False, True):
                    name = f"{source}.{quant_type}{'.double' if double else ''}"
                    case, outputs = four_bit(name, x, quant_type, double)
                    records.add({**case, **about}, outputs)
            if x.ndim == 2:
                case, outputs = eight_bit(f"{source}.int8", x)
                records.add({**case, **about}, outputs)
    x = inputs()["recipe_256x384"]
    for blocksize in (128, 256, 4096):
        case, outputs = four_bit(f"recipe_256x384.block_{blocksize}", x, "nf4", True, blocksize)
        records.add({**case, "dtype": "float32", "shape": [256, 384], "recipe": True}, outputs)
    records.write("functional")


# --- layers ----------------------------------------------------------------------------------------------------

def make_int8_matmul():
    """LLM.int8() as on a GPU: int8 activations, outlier columns apart (the library's own code, run on the CPU)."""
    records = Records()
    weight, bias = drawn(31, 24, 64) * 0.1, drawn(32, 24) * 0.1
    codes, scale, _ = bnb_functional.int8_vectorwise_quant(weight.half())
    records.tensors |= {"weight": weight, "bias": bias, "weight.codes": codes, "weight.SCB": scale}
    for input_name, values in {"plain": drawn(33, 5, 64), "outliers": outliers(), "row_of_zeros": zero_row()}.items():
        for dtype_name, dtype in DTYPES.items():
            for threshold in (6.0, 0.0):
                x = values.to(dtype)
                state = MatmulLtState()
                state.CB, state.SCB, state.threshold = codes, scale, threshold
                state.is_training, state.has_fp16_weights = False, False
                output = MatMul8bitLt.apply(x, codes, None, bias.to(dtype), state)
                name = f"{input_name}.{dtype_name}.threshold_{int(threshold)}"
                records.tensors[f"{input_name}.{dtype_name}.input"] = x.clone()
                quantized, row_scale, columns = bnb_functional.int8_vectorwise_quant(x.half(), threshold=threshold)
                case = {"name": name, "input": f"{input_name}.{dtype_name}", "threshold": threshold,
                        "outlier_columns": [] if columns is None else columns.tolist()}
                records.add(case, {"activation_codes": quantized, "activation_scale": row_scale, "output": output})
    records.write("int8_matmul")


def outliers():
    x = drawn(34, 6, 64)
    x[0, 3], x[2, 40], x[5, 40], x[4, 63] = 11.0, -6.0, 30.0, 5.9
    return x


def zero_row():
    x = drawn(35, 4, 64)
    x[2] = 0
    return x


def make_linear4bit():
    """Linear4bit forward and its state dict, for odd sizes too."""
    records = Records()
    for rows, columns in ((16, 64), (5, 21), (3, 130)):
        weight, bias, x = drawn(41, rows, columns) * 0.2, drawn(42, rows), drawn(43, 4, columns)
        records.tensors |= {f"{rows}x{columns}.weight": weight, f"{rows}x{columns}.bias": bias,
                            f"{rows}x{columns}.input": x}
        for quant_type in ("nf4", "fp4"):
            for double in (False, True):
                layer = bnb.nn.Linear4bit(columns, rows, compute_dtype=torch.float32, quant_type=quant_type,
                                          compress_statistics=double)
                layer.weight = bnb.nn.Params4bit(weight.clone(), requires_grad=False, quant_type=quant_type,
                                                 compress_statistics=double)
                layer.bias = torch.nn.Parameter(bias.clone())
                layer = layer.to("cpu").eval()
                saved = {f"state.{key}": value.clone() for key, value in layer.state_dict().items()}
                name = f"{rows}x{columns}.{quant_type}{'.double' if double else ''}"
                records.add({"name": name, "input": f"{rows}x{columns}"}, {"output": layer(x), **saved})
    records.write("linear4bit")


# --- pre-quantized checkpoints ---------------------------------------------------------------------------------

SCHEMES = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "nf4_double": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                       bnb_4bit_compute_dtype=torch.float32),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.float32),
    "int8": dict(load_in_8bit=True),
}


def transformer_inputs():
    ids = torch.tensor([[0, y, x] for y in range(4) for x in range(3)]).float()
    return {"hidden_states": drawn(51, 1, 12, 16), "encoder_hidden_states": drawn(52, 1, 7, 32),
            "pooled_projections": drawn(53, 1, 32), "timestep": torch.tensor([0.6]), "guidance": torch.tensor([3.5]),
            "img_ids": ids, "txt_ids": torch.zeros(7, 3)}


def allow_cpu():
    """Diffusers 0.42.1 refuses to quantize without a GPU although bitsandbytes can: leave that check out."""
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        quantizer.validate_environment = lambda self, *positional, **named: None
        quantizer.update_device_map = lambda self, device_map: {"": "cpu"}


def drop_source_path(config_file):
    """save_pretrained notes where the unquantized model lay on this machine."""
    with open(config_file) as file:
        config = json.load(file)
    config.pop("_name_or_path", None)
    with open(config_file, "w") as file:
        json.dump(config, file, indent=2, sort_keys=True)
        file.write("\n")


def widened(model):
    """Transformers 5 loads a quantized model in the type its config names and ignores `dtype`; widening is exact."""
    for parameter in model.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    return model


def make_models():
    """pipelines/dev quantized on loading, saved again, loaded again, run once (float32 activations)."""
    allow_cpu()
    source = f"{tiny.HERE}/pipelines/dev"
    for scheme, options in SCHEMES.items():
        folder = f"{OUT}/models/{scheme}"
        shutil.rmtree(folder, ignore_errors=True)
        FluxTransformer2DModel.from_pretrained(
            f"{source}/transformer", quantization_config=DiffusersConfig(**options), torch_dtype=torch.bfloat16,
        ).save_pretrained(f"{folder}/transformer")
        T5EncoderModel.from_pretrained(
            f"{source}/text_encoder_2", quantization_config=TransformersConfig(**options), dtype=torch.bfloat16,
        ).save_pretrained(f"{folder}/text_encoder_2")
        for part in ("transformer", "text_encoder_2"):
            drop_source_path(f"{folder}/{part}/config.json")
        transformer = FluxTransformer2DModel.from_pretrained(f"{folder}/transformer", torch_dtype=torch.float32).eval()
        t5 = widened(T5EncoderModel.from_pretrained(f"{folder}/text_encoder_2", dtype=torch.float32).eval())
        inputs_ = transformer_inputs()
        ids = torch.tensor([[14, 58, 70, 3, 274, 1, 0, 0, 0]])
        found = {**inputs_, "velocity": transformer(**inputs_, return_dict=False)[0].contiguous(),
                 "input_ids": ids, "last_hidden_state": t5(ids).last_hidden_state.contiguous()}
        save_file(found, f"{folder}/golden.safetensors")


MAKERS = {"functional": make_functional, "int8_matmul": make_int8_matmul, "linear4bit": make_linear4bit,
          "models": make_models}


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()
        print(name)


if __name__ == "__main__":
    main()
