"""Reads a GGUF file that halftone wrote with gguf-py and Diffusers, and compares.

    halftone quantize models/demo demo.gguf --quantize gguf:Q4_K
    halftone dequantize demo.gguf demo.safetensors --dtype float32
    python check_gguf.py demo.gguf demo.safetensors models/demo/transformer

Prints how many tensors gguf-py dequantizes to the same float32 bits, and how far the velocity of
FluxTransformer2DModel.from_single_file is from that of the dequantized weights. Diffusers does the scale arithmetic of
most types in float16, so that is not 0. Its converter has FLUX.1's width built in; here the model's own is put in.
"""

import inspect
import json
import sys

import gguf
import numpy as np
import torch
from diffusers import FluxTransformer2DModel, GGUFQuantizationConfig
from diffusers.loaders import single_file_model, single_file_utils
from gguf.quants import dequantize
from safetensors.numpy import load_file


def compare_tensors(path: str, dense: dict[str, np.ndarray]) -> None:
    reader = gguf.GGUFReader(path)
    equal = 0
    for tensor in reader.tensors:
        # gguf-py gives BF16 as bytes and the others by their type.
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        expected = dense[tensor.name].astype(np.float32)
        equal += values.shape == expected.shape and np.array_equal(values.view(np.uint32), expected.view(np.uint32))
    print(f"{equal} of {len(reader.tensors)} tensors ({len(dense)} in the safetensors file) have equal values")
    architecture = reader.fields["general.architecture"]
    print("architecture", bytes(architecture.parts[-1]).decode())


def patch_width(width: int) -> None:
    name = "convert_flux_transformer_checkpoint_to_diffusers"
    source = inspect.getsource(getattr(single_file_utils, name)).replace("3072", str(width))
    exec(source, single_file_utils.__dict__)
    mapping = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    mapping["checkpoint_mapping_fn"] = single_file_utils.__dict__[name]


def velocity(model: FluxTransformer2DModel, config: dict) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    def draw(*shape):
        return torch.randn(shape, generator=generator)
    guidance = torch.tensor([3.5]) if config["guidance_embeds"] else None
    with torch.no_grad():
        return model(
            hidden_states=draw(1, 64, config["in_channels"]),
            encoder_hidden_states=draw(1, 16, config["joint_attention_dim"]),
            pooled_projections=draw(1, config["pooled_projection_dim"]),
            timestep=torch.tensor([0.7]),
            img_ids=torch.tensor([[0.0, i // 8, i % 8] for i in range(64)]),
            txt_ids=torch.zeros(16, 3),
            guidance=guidance,
            return_dict=False,
        )[0]


def main() -> None:
    path, dense_path, folder = sys.argv[1:4]
    dense = load_file(dense_path)
    compare_tensors(path, dense)
    config = json.loads(open(f"{folder}/config.json").read())
    patch_width(config["num_attention_heads"] * config["attention_head_dim"])
    quantized = FluxTransformer2DModel.from_single_file(
        path,
        config=folder,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        torch_dtype=torch.float32,
    )
    convert = single_file_utils.convert_flux_transformer_checkpoint_to_diffusers
    plain = FluxTransformer2DModel.from_config(config)
    plain.load_state_dict(convert({name: torch.from_numpy(value) for name, value in dense.items()}))
    expected = velocity(plain.float(), config)
    found = velocity(quantized, config)
    error = ((found - expected).norm() / expected.norm()).item()
    print(f"velocity: relative L2 {error:.2e} between Diffusers' GGUF layers and the dequantized weights")
    original = velocity(FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32), config)
    error = ((found - original).norm() / original.norm()).item()
    print(f"velocity: relative L2 {error:.2e} between Diffusers' GGUF layers and the original model")


if __name__ == "__main__":
    main()
