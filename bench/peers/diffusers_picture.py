"""Time a whole picture with Diffusers in float32 on the CPU; prints one JSON object.

usage: diffusers_picture.py FOLDER [--prompt TEXT] [--width 128] [--height 128] [--steps 4] [--seed 0] [--threads 1]
                            [--repeats 3] [--max-sequence-length N] [--save FILE.png]
"""
import argparse
import json
import os
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--prompt", default="a red star above a blue house on a white background")
    for name, default in (("width", 128), ("height", 128), ("steps", 4), ("seed", 0), ("threads", 1), ("repeats", 3),
                          ("max-sequence-length", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--save", help="write the last picture to this file")
    return parser.parse_args()


class Stages:
    """Seconds spent inside some functions of the pipeline."""

    def __init__(self, pipe):
        self.seconds = {}
        self.watch(pipe, "encode_prompt", "text")
        self.watch(pipe.transformer, "forward", "transformer")
        self.watch(pipe.vae, "decode", "decode")

    def watch(self, owner, name, stage):
        function = getattr(owner, name)

        def timed(*positional, **named):
            began = time.perf_counter()
            result = function(*positional, **named)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
            return result

        setattr(owner, name, timed)


def main():
    args = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import diffusers
    import torch
    torch.set_num_threads(args.threads)
    began = time.perf_counter()
    pipe = diffusers.FluxPipeline.from_pretrained(args.folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    report = {"load_seconds": time.perf_counter() - began, "repeats": []}
    stages = Stages(pipe)
    for _ in range(args.repeats):
        stages.seconds.clear()
        began = time.perf_counter()
        picture = pipe(args.prompt, width=args.width, height=args.height, num_inference_steps=args.steps,
                       max_sequence_length=args.max_sequence_length,
                       generator=torch.Generator("cpu").manual_seed(args.seed)).images[0]
        report["repeats"].append({"seconds": time.perf_counter() - began, **stages.seconds})
    report["best_seconds"] = min(r["seconds"] for r in report["repeats"])
    report |= {"torch": torch.__version__, "diffusers": diffusers.__version__, "arguments": vars(args)}
    if args.save:
        picture.save(args.save)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
