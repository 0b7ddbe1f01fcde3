"""Time the Python libraries (and ggml's C) quantizing one matrix on the CPU, for bench/quantize.ts.

usage: quantize.py ROWS COLUMNS [--threads 2] [--ggml FOLDER]

The matrix is torch.randn of seed 0 in bfloat16. Reads names of formats from standard input, one per line; answers each
with one line of JSON: seconds by the clock (wall), of the processor (cpu), and who was measured; {} where no library
has the format. FOLDER holds ggml's include/ and src/; its quantizers are compiled as ggml's own release build does.
"""
import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("rows", type=int)
parser.add_argument("columns", type=int)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--ggml")
ARGS = parser.parse_args()
os.environ |= {"OMP_NUM_THREADS": str(ARGS.threads), "TORCHDYNAMO_DISABLE": "1"}

import torch  # noqa: E402  (after the number of threads)

torch.set_num_threads(ARGS.threads)
WEIGHT = torch.randn(ARGS.rows, ARGS.columns, generator=torch.Generator("cpu").manual_seed(0)).to(torch.bfloat16)

FLOATX = {"fp3": (1, 1), "fp4": (2, 1), "fp5": (2, 2), "fp6": (3, 2), "fp7": (3, 3)}
MODELOPT = {
    "fp8": dict(num_bits=(4, 3)), "int8": dict(num_bits=8, axis=0), "int4": dict(num_bits=4, block_sizes={-1: 128}),
    "nf4": dict(num_bits=4, block_sizes={-1: 64, "scale_bits": 8, "scale_block_sizes": {-1: 256}}),
    "nvfp4": dict(num_bits=(2, 1), block_sizes={-1: 16, "scale_bits": (4, 3), "scale_block_sizes": {-1: 8}}),
}
GGML_BLOCKS = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "IQ4_NL": (32, 18),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "IQ4_XS": (256, 136), "MXFP4": (32, 17), "NVFP4": (64, 36),
}


def linear():
    layer = torch.nn.Linear(ARGS.columns, ARGS.rows, bias=False, device="meta")
    layer.weight = torch.nn.Parameter(WEIGHT, requires_grad=False)
    return layer


def bitsandbytes_job(name):
    import bitsandbytes.functional as functional
    if name == "int8":
        return lambda: functional.int8_vectorwise_quant(WEIGHT.to(torch.float16))
    quant_type, _, nested = name.partition("-")
    return lambda: functional.quantize_4bit(WEIGHT, compress_statistics=nested == "dq", quant_type=quant_type)


def torchao_config(name):
    from torchao import quantization as ao
    from torchao.quantization.quant_primitives import MappingType
    if name.startswith("uint"):
        return ao.IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{name[4]}"), granularity=ao.PerGroup(64),
                                       mapping_type=MappingType.ASYMMETRIC)
    configs = {"int8wo": ao.Int8WeightOnlyConfig, "float8wo_e4m3": ao.Float8WeightOnlyConfig,
               "float8wo_e5m2": lambda: ao.Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2),
               "int8dq": ao.Int8DynamicActivationInt8WeightConfig,
               "int4dq": lambda: ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4,
                                                                          weight_granularity=ao.PerGroup(32)),
               "float8dq": ao.Float8DynamicActivationFloat8WeightConfig,
               "float8dq_e4m3_row": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())}
    return configs[name]() if name in configs else None


def torchao_job(name):
    if name in FLOATX:
        from torchao.quantization import quant_primitives as primitives

        def floatx():
            scale = primitives._choose_qparams_affine_floatx(WEIGHT, *FLOATX[name])
            primitives._quantize_affine_floatx(WEIGHT, scale, *FLOATX[name])

        return floatx
    if name == "int4wo":
        return int4_rows
    if name == "int4wo_hqq":
        return hqq
    config = torchao_config(name)
    from torchao.quantization import quantize_
    job = config and (lambda: quantize_(torch.nn.Sequential(linear()), config))
    return on_any_device(job) if name.startswith("float8dq") else job


def int4_rows(group_size=128):
    """What Int4WeightOnlyConfig computes; torchao's own function lives in mslk, which needs a GPU to import."""
    values = WEIGHT.reshape(-1, group_size).to(torch.float)
    largest, least = values.amax(dim=1, keepdim=True), values.amin(dim=1, keepdim=True)
    scales = (largest - least).clamp(min=1e-6) / 15
    codes = (values.sub(least).div(scales).round().clamp_(0, 15) - 8).to(dtype=torch.int8).reshape(WEIGHT.shape)
    return (codes[:, ::2] & 0xF) | (codes[:, 1::2] << 4), least + scales * 8


def on_any_device(job):
    """Weights are quantized alike everywhere, but for float8 activations torchao asks for a GPU that multiplies it."""
    def asked():
        known = torch.cuda.is_available, torch.cuda.get_device_capability
        torch.cuda.is_available, torch.cuda.get_device_capability = lambda: True, lambda *_: (9, 0)
        try:
            job()
        finally:
            torch.cuda.is_available, torch.cuda.get_device_capability = known

    return asked


def hqq():
    """What chooses the zeros of Int4WeightOnlyConfig with HQQ; packing into tiles needs a GPU."""
    from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_affine_hqq
    _choose_qparams_and_quantize_affine_hqq(WEIGHT, nbits=4, group_size=128, axis=1, compute_dtype=torch.bfloat16,
                                            device="cpu", raw_output=False)


def quanto_job(name):
    from optimum import quanto
    from optimum.quanto.tensor.weights import WeightQBitsTensor

    def plain(qtype, axis, group_size, size, stride, data, scale, shift, requires_grad=False):
        """Without repacking for a CPU kernel."""
        return WeightQBitsTensor(qtype, axis, group_size, size, stride, data, scale, shift, requires_grad)

    WeightQBitsTensor.create = staticmethod(plain)
    qtype = {"float8": quanto.qfloat8, "int8": quanto.qint8, "int4": quanto.qint4, "int2": quanto.qint2}[name]
    layer = quanto.QLinear(ARGS.columns, ARGS.rows, bias=False, dtype=torch.bfloat16, weights=qtype)
    layer.weight = torch.nn.Parameter(WEIGHT, requires_grad=False)
    return lambda: layer.qweight  # what freeze() keeps


def layerwise_job(name):
    """Into memory that serves again, as here: the fresh result of .to() costs more for its pages than the cast."""
    cast = torch.empty_like(WEIGHT, dtype=getattr(torch, name))
    return lambda: cast.copy_(WEIGHT)


def modelopt_job(name):
    import modelopt.torch.quantization as mtq
    quantizers = [{"quantizer_name": "*", "enable": False},
                  {"quantizer_name": "*weight_quantizer", "enable": True, "cfg": MODELOPT[name]}]

    def job():
        model = torch.nn.Sequential(linear())
        mtq.quantize(model, {"quant_cfg": quantizers, "algorithm": "max"})
        mtq.compress(model)

    return job


STUBS = """
#include <stdlib.h>
#include <stdint.h>
void ggml_abort(const char * f, int l, const char * m, ...) { abort(); }
size_t ggml_row_size(int t, int64_t n) { return 0; }
size_t ggml_type_size(int t) { abort(); }
const char * ggml_type_name(int t) { return ""; }
"""


def compile_ggml(ggml):
    folder = Path(tempfile.mkdtemp())
    (folder / "stubs.c").write_text(STUBS)
    command = ["gcc", "-O3", "-march=native", "-fPIC", "-shared", "-DNDEBUG", "-w"]
    command += [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")]
    command += [str(ggml / "src/ggml-quants.c"), str(folder / "stubs.c"), "-o", str(folder / "quants.so"), "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(folder / "quants.so"))


GGML = compile_ggml(Path(ARGS.ggml)) if ARGS.ggml else None


def gguf_job(name):
    base = name.removesuffix("_S").removesuffix("_M").removesuffix("_L")
    if GGML is None or base not in GGML_BLOCKS or base != name:
        return None  # mixes are of these types
    elements, size = GGML_BLOCKS[base]
    quantize = getattr(GGML, f"quantize_{base.lower().replace('_k', '_K')}")
    count = ARGS.rows // ARGS.threads
    out = torch.empty(ARGS.rows * ARGS.columns // elements * size, dtype=torch.uint8)

    def part(index):
        """Some rows on a thread of their own; ctypes lets go of Python's lock."""
        values = WEIGHT[index * count:(index + 1) * count].float()
        target = out.data_ptr() + index * count * ARGS.columns // elements * size
        quantize(ctypes.c_void_p(values.data_ptr()), ctypes.c_void_p(target), ctypes.c_int64(count),
                 ctypes.c_int64(ARGS.columns), None)

    def job():
        with ThreadPoolExecutor(ARGS.threads) as pool:
            list(pool.map(part, range(ARGS.threads)))

    return job


JOBS = {"bitsandbytes": (bitsandbytes_job, "bitsandbytes"), "torchao": (torchao_job, "torchao"),
        "quanto": (quanto_job, "optimum-quanto"), "layerwise": (layerwise_job, "torch"),
        "modelopt": (modelopt_job, "nvidia-modelopt"), "gguf": (gguf_job, None)}


def version(package):
    from importlib.metadata import version
    return f"{package} {version(package)}" if package else "ggml (C, gcc -O3 -march=native)"


def measured(job, peer):
    began, processor = time.perf_counter(), time.process_time()
    with torch.no_grad():
        job()
    return {"wall": time.perf_counter() - began, "cpu": time.process_time() - processor, "peer": version(peer)}


def answer(full_name, known={}):
    method, _, name = full_name.partition(":")
    if full_name not in known:
        make, _ = JOBS.get(method, (lambda name: None, None))
        try:
            known[full_name] = make(name)
        except (KeyError, AttributeError):
            known[full_name] = None  # a format that this script does not know yet
    job = known[full_name]
    return measured(job, JOBS[method][1]) if job else {}


def main():
    out = os.dup(1)
    os.dup2(2, 1)  # libraries may print; only answers go out
    with os.fdopen(out, "w", buffering=1) as answers:
        for line in sys.stdin:
            print(json.dumps(answer(line.strip())), file=answers)


if __name__ == "__main__":
    main()
