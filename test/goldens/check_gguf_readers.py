"""Reads GGUF files that halftone wrote with the code of the tools that are to read them.

    halftone quantize models/demo flux.gguf --quantize gguf:Q4_K_M
    halftone quantize models/demo t5.gguf --quantize text_encoder_2=gguf:Q4_K_M
    git clone https://github.com/city96/ComfyUI-GGUF
    python check_gguf_readers.py GGML ComfyUI-GGUF flux.gguf t5.gguf

- ggml's gguf_init_from_file, which stable-diffusion.cpp opens files with (GGML as for make_gguf_goldens.py): types, sizes,
  places and shapes are those that gguf-py finds.
- ComfyUI-GGUF's loader: the architecture is one it knows, T5's names become those of Transformers, and its own
  dequantization, whose scale arithmetic is in float16, gives nearly gguf-py's values.
- The names are those by which both, and Diffusers, tell a transformer of FLUX.1.
"""

import importlib.util
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize

HERE = Path(__file__).parent
# What Diffusers, ComfyUI and stable-diffusion.cpp look for.
FLUX_NAMES = ("img_in.weight", "txt_in.weight", "final_layer.adaLN_modulation.1.weight",
              "double_blocks.0.img_attn.norm.key_norm.scale", "single_blocks.0.linear1.weight")
T5_NAMES = ("shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "encoder.block.0.layer.1.DenseReluDense.wo.weight", "encoder.final_layer_norm.weight")


def compile_lister(ggml: Path) -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "ggml-version.h").write_text('#define GGML_VERSION ""\n#define GGML_COMMIT ""\n')
    include = [f"-I{ggml / part}" for part in ("include", "src")] + [f"-I{folder}"]
    subprocess.run(["gcc", "-w", *include, "-c", ggml / "src/ggml.c", "-o", folder / "ggml.o"], check=True)
    subprocess.run(
        ["g++", "-std=c++17", "-w", "-no-pie", "-static", *include, HERE / "ggml_list.cpp", ggml / "src/gguf.cpp", ggml / "src/ggml-threading.cpp",
         folder / "ggml.o", "-o", folder / "list", "-Wl,--unresolved-symbols=ignore-all", "-lpthread", "-lm"],
        check=True,
    )
    return folder / "list"


def check_ggml(lister: Path, path: str) -> None:
    output = subprocess.run([lister, path], capture_output=True, text=True, check=True).stdout
    listed = [line.split("\t") for line in output.splitlines()]
    tensors = gguf.GGUFReader(path).tensors
    assert len(listed) == len(tensors)
    for (name, kind, size, offset, *shape), tensor in zip(listed, tensors):
        # ggml leaves out trailing dimensions of 1.
        found = [int(n) for n in shape] + [1] * (len(tensor.shape) - len(shape))
        assert (name, kind.upper()) == (tensor.name, tensor.tensor_type.name), name
        assert (int(size), int(offset)) == (tensor.n_bytes, tensor.data_offset), name
        assert found == list(tensor.shape), name
    print(f"{path}: {len(listed)} tensors are where ggml's own reader finds them")


def load_comfy(folder: Path) -> types.ModuleType:
    """loader.py and dequant.py as they are; of ops.py only the tensor class, which else wants ComfyUI itself."""
    package = types.ModuleType("comfy_gguf")
    package.__path__ = [str(folder)]
    sys.modules["comfy_gguf"] = package
    ops = types.ModuleType("comfy_gguf.ops")

    class GGMLTensor(torch.Tensor):
        def __new__(cls, data, *, tensor_type, tensor_shape):
            return torch.Tensor._make_subclass(cls, data)

        def __init__(self, data, *, tensor_type, tensor_shape):
            self.tensor_type, self.tensor_shape = tensor_type, tensor_shape

        @property
        def shape(self):
            return getattr(self, "tensor_shape", self.size())

    ops.GGMLTensor = GGMLTensor
    sys.modules["comfy_gguf.ops"] = ops
    for name in ("dequant", "loader"):
        spec = importlib.util.spec_from_file_location(f"comfy_gguf.{name}", folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"comfy_gguf.{name}"] = module
        spec.loader.exec_module(module)
    return sys.modules["comfy_gguf.loader"]


def check_comfy(loader: types.ModuleType, path: str, text: bool) -> None:
    loaded, architecture = loader.gguf_sd_loader(path, return_arch=True, is_text_model=text)
    expected = {t.name: dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    worst = 0.0
    for name, tensor in loaded.items():
        values = loader.dequantize_tensor(tensor, dtype=torch.float32).float().numpy()
        assert list(values.shape) == list(expected[name].shape), name
        worst = max(worst, float(np.abs(values - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30)))
    names = loader.gguf_clip_loader(path) if text else loaded
    missing = [name for name in (T5_NAMES if text else FLUX_NAMES) if name not in names]
    assert not missing, missing
    print(f"{path}: ComfyUI-GGUF reads {len(loaded)} tensors as {architecture}, "
          f"values within {worst:.1e} of gguf-py's, and has the names it looks for")


def main() -> None:
    ggml, comfy, flux, t5 = sys.argv[1:5]
    lister = compile_lister(Path(ggml))
    loader = load_comfy(Path(comfy))
    for path in (flux, t5):
        check_ggml(lister, path)
        check_comfy(loader, path, text=path == t5)


if __name__ == "__main__":
    main()
