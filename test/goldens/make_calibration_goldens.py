"""Ranges that ModelOpt's calibrators find: python make_calibration_goldens.py writes modelopt_calibration.json.

`amax` and `percentile`: `input_quantizer._amax` of every linear layer of the transformer and of T5 by the "max" and the
"histogram" calibrator (99.9 %), with a forward loop that is the call of pipelines/dev (its golden.json), in float32;
`width` is that of a histogram's bins.
`histograms`: the same calibrator on sequences of drawn tensors. (Its "entropy" knows no FP8, its "mse" fails.)
"""

import json
import warnings

import modelopt.torch.quantization as mtq
import torch
from diffusers import FluxPipeline
from modelopt.torch.quantization.calib import HistogramCalibrator
from modelopt.torch.quantization.model_calib import enable_stats_collection
from quantizer_inputs import HERE

FOLDER = f"{HERE}/pipelines/dev"
PERCENTILE = 99.9
PERCENTILES = (0.1, 50, 99, 99.9, 99.99, 100)
# Shape, and what the values of each tensor are multiplied by.
SEQUENCES = [((1, 1), [1]), ((7, 100), [1]), ((300, 500), [1, 2, 0.5]), ((7, 100), [1, 1.001, 3]), ((300, 500), [3, 1]),
             ((40, 50), [1e-6, 1e-5]), ((40, 50), [1, 1, 1, 1])]


def arguments():
    with open(f"{FOLDER}/golden.json") as file:
        found = json.load(file)["arguments"]
    seed = found.pop("seed")
    return {**found, "output_type": "latent"}, seed


def settings(calibrator):
    return [{"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*input_quantizer", "enable": True,
             "cfg": {"num_bits": (4, 3), "calibrator": calibrator}}]


def layers(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}


def largest(model, loop):
    mtq.quantize(model, {"quant_cfg": settings("max"), "algorithm": "max"}, loop)
    found = {name: layer.input_quantizer.amax for name, layer in layers(model).items()}
    return {name: amax.item() for name, amax in found.items() if amax is not None}


def percentiles(model, loop):
    mtq.quantize(model, {"quant_cfg": settings("histogram"), "algorithm": None})
    enable_stats_collection(model)
    loop(model)
    found, widths = {}, {}
    for name, layer in layers(model).items():
        calibrator = layer.input_quantizer._calibrator
        amax = calibrator.compute_amax("percentile", percentile=PERCENTILE)
        if amax is not None:
            found[name] = amax.item()
            widths[name] = (calibrator._calib_bin_edges[1] - calibrator._calib_bin_edges[0]).item()
    return found, widths


def calibrated(find):
    call, seed = arguments()
    found = {}
    for name in ("transformer", "text_encoder_2"):
        pipe = FluxPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        found[name] = find(getattr(pipe, name), lambda _: pipe(**call, generator=torch.Generator().manual_seed(seed)))
    return found


def histogram(shape, scales):
    calibrator = HistogramCalibrator()
    for seed, scale in enumerate(scales):
        calibrator.collect(torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale)
    amax = [[percent, calibrator.compute_amax("percentile", percentile=percent).item()] for percent in PERCENTILES]
    return {"shape": shape, "scales": scales, "bins": len(calibrator._calib_hist), "amax": amax}


def main():
    call, seed = arguments()
    by_percentile = calibrated(percentiles)
    golden = {
        "arguments": call, "seed": seed, "amax": calibrated(largest), "percent": PERCENTILE,
        "percentile": {name: found for name, (found, _) in by_percentile.items()},
        "width": {name: widths for name, (_, widths) in by_percentile.items()},
        "histograms": [histogram(*sequence) for sequence in SEQUENCES],
    }
    with open(f"{HERE}/modelopt_calibration.json", "w") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with torch.no_grad():
        main()
