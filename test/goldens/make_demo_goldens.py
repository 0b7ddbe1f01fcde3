"""Pictures of the demo model -> demo/: 8 prompts with 4 steps, and the first one with 20 steps too.

demo.json lists the calls; demo.safetensors holds, for call i, `i.latents` (packed, after the last step, float32) and
`i.image` (uint8, [height, width, 3]). Everything is computed in float32 from the published bfloat16 weights.
"""
import json
import os

import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file

import tiny_models as tiny

OUT = os.path.join(tiny.HERE, "demo")
PROMPTS = [
    "a red star above a blue house on a white background", "a yellow face on a purple background",
    "a large green tree on a pink background", "an orange fish left of a teal moon at sunset",
    "a small black cross at the top on a yellow background", "a white flower on a green background",
    "a pink heart on a black background", "a blue ring below a brown diamond on a gray background",
]


def run(pipe, call):
    """(packed latents after the last step, picture as bytes)."""
    last = {}

    def after_step(_pipe, _index, _timestep, tensors):
        last["latents"] = tensors["latents"].clone()
        return {}

    arguments = {**call, "generator": torch.Generator("cpu").manual_seed(call["seed"])}
    arguments.pop("seed")
    image = pipe(**arguments, output_type="np", callback_on_step_end=after_step).images[0]
    return last["latents"], torch.from_numpy((image * 255).round().astype("uint8")).contiguous()


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    os.makedirs(OUT, exist_ok=True)
    pipe = FluxPipeline.from_pretrained(tiny.DEMO, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    shared = {"width": 128, "height": 128, "seed": 0, "max_sequence_length": 32}
    calls = [{"prompt": prompt, "num_inference_steps": 4, **shared} for prompt in PROMPTS]
    calls.append({"prompt": PROMPTS[0], "num_inference_steps": 20, **shared})
    found = {}
    for index, call in enumerate(calls):
        found[f"{index}.latents"], found[f"{index}.image"] = run(pipe, call)
    save_file(found, f"{OUT}/demo.safetensors")
    with open(f"{OUT}/demo.json", "w") as file:
        json.dump(calls, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
