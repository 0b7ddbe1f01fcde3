"""PyTorch, on the CPU unless said otherwise, as bench/suite/child_contender.ts speaks to it.

usage: torch_peer.py attention TOKENS HEADS HEAD_DIM THREADS QKV.f32
       torch_peer.py linear M K N THREADS X.f32 W.f32
       torch_peer.py picture FOLDER DTYPE THREADS WIDTH HEIGHT STEPS
       torch_peer.py flux_step DEVICE THREADS PIXELS eager|compiled CONFIG_JSON
"""
import json
import os
import resource
import sys
import time

# Which of a case's words says how many threads.
THREADS = {"attention": 3, "linear": 3, "picture": 2, "flux_step": 1}
TEXT_TOKENS = 32


def floats(torch, path, *shape):
    return torch.frombuffer(bytearray(open(path, "rb").read()), dtype=torch.float32).reshape(shape)


def attention(torch, tokens, heads, head_dim, _threads, path):
    """q, k, v [tokens, heads * head_dim] lie one after the other in the file."""
    tokens, heads, head_dim = int(tokens), int(heads), int(head_dim)
    qkv = floats(torch, path, 3, tokens, heads, head_dim).permute(0, 2, 1, 3)[:, None]
    q, k, v = (part.contiguous() for part in qkv)

    def run(_round):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    return run, lambda result: result[0].permute(1, 0, 2).reshape(tokens, heads * head_dim)


def linear(torch, m, k, n, _threads, x_path, w_path):
    x, w = floats(torch, x_path, int(m), int(k)), floats(torch, w_path, int(n), int(k))
    return lambda _round: torch.nn.functional.linear(x, w), lambda result: result


def picture(torch, folder, dtype, _threads, width, height, steps):
    import diffusers
    pipe = diffusers.FluxPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)

    def run(round_number):
        return pipe(f"a red star above a blue house {round_number}", width=int(width), height=int(height),
                    num_inference_steps=int(steps), max_sequence_length=TEXT_TOKENS, output_type="np",
                    generator=torch.Generator("cpu").manual_seed(0)).images[0]

    return run, lambda image: torch.from_numpy(image).float()


def flux_step(torch, device, _threads, pixels, mode, config):
    """One forward of Diffusers' transformer in bfloat16 with random weights: 512 text tokens, one picture."""
    import diffusers
    tokens, side = 512, int(pixels) // 16
    settings = {name: value for name, value in json.loads(config).items() if not name.startswith("_")}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = diffusers.FluxTransformer2DModel(**settings).eval()
        inputs = {
            "hidden_states": torch.randn(1, side * side, settings["in_channels"]),
            "encoder_hidden_states": torch.randn(1, tokens, settings["joint_attention_dim"]),
            "pooled_projections": torch.randn(1, settings["pooled_projection_dim"]),
            "timestep": torch.ones(1),
            "txt_ids": torch.zeros(tokens, 3),
            "img_ids": torch.stack([torch.zeros(side * side), torch.arange(side * side) // side,
                                    torch.arange(side * side) % side], 1),
        }
        if settings.get("guidance_embeds"):
            inputs["guidance"] = torch.ones(1)
    forward = torch.compile(model, mode="max-autotune-no-cudagraphs") if mode == "compiled" else model

    def run(_round):
        result = forward(**inputs).sample
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run, lambda result: result.float().cpu()


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    case, *words = sys.argv[1:]
    threads = int(words[THREADS[case]])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    torch.set_num_threads(threads)
    with torch.inference_mode():
        cases = {"attention": attention, "linear": linear, "picture": picture, "flux_step": flux_step}
        run, matrix = cases[case](torch, *words)
        settings = {"threads": threads, "capability": torch.backends.cpu.get_cpu_capability()}
        print(json.dumps({"version": versions(torch), "settings": settings}), flush=True)
        serve(run, matrix)


def versions(torch):
    diffusers = sys.modules.get("diffusers")
    return torch.__version__ if diffusers is None else f"{diffusers.__version__} (torch {torch.__version__})"


def serve(run, matrix):
    result = None
    for line in sys.stdin:
        command, argument = line.split()
        if command == "output":
            matrix(result).contiguous().numpy().tofile(argument)
            print("{}", flush=True)
            continue
        began, used = time.perf_counter(), processor_seconds()
        result = run(int(argument))
        wall = time.perf_counter() - began
        print(json.dumps({"wall": wall, "processor": processor_seconds() - used}), flush=True)


if __name__ == "__main__":
    main()
