"""Goldens of modelopt_state.pth and of Python's pickles: python make_modelopt_state_goldens.py writes modelopt_state.json
and python_pickle.json.

The state that ModelOpt 0.47 keeps of the tiny Flux transformer in pipelines/dev, quantized and compressed by the library
with the settings that halftone has: outer modules, `proj_out` and LayerNorms alone. `_input_dtype`, where a disabled
quantizer notes the type of the last tensor it saw, is left out. What is said of several
quantizers is written once.
"""

import json
import pickle
import pickletools

import modelopt.torch.opt as mto
import modelopt.torch.quantization as mtq
import torch
from diffusers import FluxTransformer2DModel
from quantizer_inputs import HERE

FP8, INT8, INT4 = dict(num_bits=(4, 3)), dict(num_bits=8), dict(num_bits=4)
SCALES = {"NF4": {"scale_bits": 8, "scale_block_sizes": {-1: 256}},
          "NVFP4": {"scale_bits": (4, 3), "scale_block_sizes": {-1: 8}}}
# name -> (weights, activations, whether these are calibrated)
CASES = {
    "FP8": (FP8, None, False), "FP8.channel": (FP8 | {"axis": 0}, None, False),
    "FP8.block": (FP8 | {"block_sizes": {-1: 16}}, None, False),
    "INT8.channel": (INT8 | {"axis": 0}, None, False), "INT8.block": (INT8 | {"block_sizes": {-1: 16}}, None, False),
    "INT4": (INT4 | {"block_sizes": {-1: 32}}, None, False),
    "NF4": (INT4 | {"block_sizes": {-1: 32} | SCALES["NF4"]}, None, False),
    "NVFP4": (dict(num_bits=(2, 1), block_sizes={-1: 16} | SCALES["NVFP4"]), None, False),
    "FP8_FP8": (FP8, FP8, True), "INT8_INT4": (INT8 | {"axis": 0}, INT4, False),
}
OUTER = ("x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out")


def is_dense(name, module):
    if isinstance(module, torch.nn.LayerNorm):
        return True
    return isinstance(module, torch.nn.Linear) and (name.split(".")[0] in OUTER or name.endswith("proj_out"))


def run(model):
    config = model.config
    drawn = torch.Generator().manual_seed(7)
    rows = lambda *shape: torch.randn(*shape, generator=drawn)
    model(hidden_states=rows(1, 16, config.in_channels), encoder_hidden_states=rows(1, 8, config.joint_attention_dim),
          pooled_projections=rows(1, config.pooled_projection_dim), timestep=torch.tensor([0.5]),
          guidance=torch.tensor([3.5]) if config.guidance_embeds else None,
          img_ids=torch.zeros(16, 3), txt_ids=torch.zeros(8, 3))


def state_of(weights, inputs, is_calibrated):
    model = FluxTransformer2DModel.from_pretrained(f"{HERE}/pipelines/dev/transformer", torch_dtype=torch.float32)
    dense = sorted(name for name, module in model.named_modules() if is_dense(name, module))
    quantizers = [{"quantizer_name": "*", "enable": False},
                  {"quantizer_name": "*weight_quantizer", "enable": True, "cfg": weights},
                  *([{"quantizer_name": "*input_quantizer", "enable": True, "cfg": inputs}] if inputs else []),
                  *({"quantizer_name": f"{name}.*", "enable": False} for name in dense)]
    mtq.quantize(model, {"quant_cfg": quantizers, "algorithm": "max"}, run if is_calibrated else None)
    mtq.compress(model)
    return mto.modelopt_state(model)


def plain(value):
    """JSON that tells Python's types apart."""
    if isinstance(value, torch.Size):
        return {"torch.Size": list(value)}
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__name__}"
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if key != "_input_dtype"}
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    assert value is None or type(value) in (bool, int, float, str), type(value)
    return {"float": value} if isinstance(value, float) else value


def shortened(state, attributes, names):
    """The state with, for each name in order, the number of what it says of that; the names are kept once."""
    def numbers(found):
        attributes.extend(item for item in found.values() if item not in attributes)
        return [attributes.index(found[name]) for name in sorted(found)]

    for mode in state["modelopt_state_dict"]:
        name, metadata = mode["tuple"][0], mode["tuple"][1]["metadata"]
        for key, found in metadata.items():
            assert names.setdefault(key, sorted(found)) == sorted(found), (name, key)
            metadata[key] = numbers(found)
    return state


PICKLED = {
    "None": None, "True": True, "False": False, "0": 0, "255": 255, "256": 256, "65535": 65535, "65536": 65536, "-1": -1,
    "-2147483648": -2**31, "7.0": 7.0, "text": "abc", "text beyond ASCII": "\u00fc\U0001f308", "[]": [], "[1]": [1],
    "[1, 2]": [1, 2], "{}": {}, "{-1: 128}": {-1: 128}, "{-1: 1, -2: 2}": {-1: 1, -2: 2}, "()": (), "(1,)": (1,),
    "(1, 2)": (1, 2), "(1, 2, 3)": (1, 2, 3), "(1, 2, 3, 4)": (1, 2, 3, 4), "torch.bfloat16": torch.bfloat16,
    "torch.Size([])": torch.Size([]), "torch.Size([2, 300])": torch.Size([2, 300]),
    "a text twice": ["a"] * 2, "300 texts twice": [f"t{index}" for index in range(300)] * 2,
}


def main():
    attributes, names, states = [], {}, {}
    for name, case in CASES.items():
        states[name] = shortened(plain(state_of(*case)), attributes, names)
    with open(f"{HERE}/modelopt_state.json", "w") as file:
        lines = ",\n".join(json.dumps(item) for item in attributes)
        cases = ",\n".join(f"{json.dumps(name)}: {json.dumps(state)}" for name, state in states.items())
        file.write(f'{{"names": {json.dumps(names)},\n"attributes": [\n{lines}\n],\n"states": {{\n{cases}\n}}}}\n')
    pickles = {name: pickletools.optimize(pickle.dumps(value, 2)).hex() for name, value in PICKLED.items()}
    with open(f"{HERE}/python_pickle.json", "w") as file:
        json.dump(pickles, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
