"""Ranges that ModelOpt's "max" calibration finds with a forward loop: python make_calibration_goldens.py writes
modelopt_calibration.json.

The forward loop is the call of pipelines/dev (its golden.json), in float32; kept is `input_quantizer._amax` of every
linear layer of the transformer and of T5.
"""

import json
import warnings

import modelopt.torch.quantization as mtq
import torch
from diffusers import FluxPipeline
from quantizer_inputs import HERE

FOLDER = f"{HERE}/pipelines/dev"


def arguments():
    with open(f"{FOLDER}/golden.json") as file:
        found = json.load(file)["arguments"]
    seed = found.pop("seed")
    return {**found, "output_type": "latent"}, seed


def main():
    pipe = FluxPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    call, seed = arguments()
    quantizers = [{"quantizer_name": "*", "enable": False},
                  {"quantizer_name": "*input_quantizer", "enable": True, "cfg": {"num_bits": (4, 3)}}]
    found = {}
    for name in ("transformer", "text_encoder_2"):
        model = getattr(pipe, name)
        mtq.quantize(model, {"quant_cfg": quantizers, "algorithm": "max"},
                     lambda _: pipe(**call, generator=torch.Generator().manual_seed(seed)))
        found[name] = {module: quantized.input_quantizer.amax.item() for module, quantized in model.named_modules()
                       if isinstance(quantized, torch.nn.Linear) and quantized.input_quantizer.amax is not None}
        mtq.disable_quantizer(model, "*")
    with open(f"{HERE}/modelopt_calibration.json", "w") as file:
        json.dump({"arguments": call, "seed": seed, "amax": found}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with torch.no_grad():
        main()
