"""Whole FluxPipeline runs on tiny random checkpoints -> pipelines/NAME/.

Each folder is a Diffusers checkpoint plus golden.json (how to call it) and golden.safetensors (what must come out).
usage: make_pipeline_goldens.py [NAME ...]
"""
import json
import os
import sys

import torch
from diffusers.utils import logging
from safetensors.torch import save_file

import tiny_models as tiny

OUT = os.path.join(tiny.HERE, "pipelines")
CAPTION = "a red star above a blue house on a white background"


def arguments(**changed):
    """Call arguments shared by most configurations."""
    return {"prompt": CAPTION, "width": 32, "height": 32, "num_inference_steps": 3, "guidance_scale": 3.5,
            "max_sequence_length": 16, "seed": 0, **changed}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Parts of the configurations that are only about the call: as small as possible.
SMALL = {"transformer": dict(heads=1, seed=12), "t5": dict(layers=1, heads=2), "clip": dict(layers=1, hidden=32),
         "vae": dict(widths=(4, 8))}

# name -> (what is special, parts: component -> options of tiny_models, call arguments)
CONFIGS = {
    "schnell": ("smallest: one double and one single block, no guidance, static shift 1", {}, arguments()),
    "dev": ("guidance embedding, dynamic shifting, not square",
            {"transformer": dict(double=2, single=2, guidance=True, seed=11), "scheduler": tiny.dev_scheduler},
            arguments(width=48, num_inference_steps=5)),
    "batch_two_prompts": ("two prompts, one generator", SMALL,
                          arguments(prompt=["a yellow face", CAPTION], seed=7)),
    "three_heads": ("3 heads, 1 double and 3 single blocks, size not divisible by 16, odd text length",
                   {**SMALL, "transformer": dict(heads=3, single=3, seed=13), "t5": dict(heads=2, head_dim=16)},
                   arguments(width=39, height=25, max_sequence_length=7)),
    "single_blocks_only": ("no double block, head size 64, static shift 3, other CLIP and T5 widths",
                           {**SMALL, "transformer": dict(double=0, single=2, heads=1, head_dim=64, joint=48, pooled=24, seed=14),
                            "t5": dict(width=48, layers=1), "clip": dict(width=24, heads=2, layers=3),
                            "scheduler": lambda: tiny.schnell_scheduler(shift=3.0)},
                           arguments(height=16, num_inference_steps=2)),
    "double_blocks_only": ("no single block, 1 head of size 32",
                           {**SMALL, "transformer": dict(double=3, single=0, heads=1, head_dim=32, seed=15)},
                           arguments(max_sequence_length=13)),
    "heads_of_32": ("2 heads of 32, one single block", {**SMALL, "transformer": dict(head_dim=32, double=0, seed=16)},
                    arguments(width=16, num_inference_steps=4)),
    "three_images_per_prompt": ("num_images_per_prompt 3 with two prompts and a seed for each picture",
                                SMALL,
                                arguments(prompt=["a fish", "a red moon"], num_images_per_prompt=3,
                                          seed=[1, 2, 3, 4, 5, 6], width=16, height=16)),
    "true_guidance": ("true_cfg_scale with a negative prompt, guidance embedding too",
                      {**SMALL, "transformer": dict(guidance=True, seed=18), "scheduler": tiny.dev_scheduler},
                      arguments(true_cfg_scale=2.5, negative_prompt="a green tree", guidance_scale=1.5)),
    "true_guidance_batch": ("true guidance, two prompts, two negative prompts, negative_prompt_2",
                            SMALL,
                            arguments(prompt=["a red moon", "a fish"], negative_prompt=["a face", ""],
                                      negative_prompt_2=["a cross", "a ring at sunset"], true_cfg_scale=4.0)),
    "given_sigmas": ("sigmas given by the caller, dynamic shifting",
                     {**SMALL, "scheduler": tiny.dev_scheduler},
                     arguments(sigmas=[1.0, 0.7, 0.55, 0.1], num_inference_steps=4)),
    "given_latents": ("start latents given by the caller (packed)", SMALL,
                      arguments(latents=drawn(5, 1, 64, 16))),
    "given_embeds": ("prompt_embeds and pooled_prompt_embeds given, also the negative ones",
                     SMALL,
                     arguments(prompt=None, prompt_embeds=drawn(1, 1, 48, 32), pooled_prompt_embeds=drawn(2, 1, 32),
                               negative_prompt_embeds=drawn(3, 1, 48, 32), max_sequence_length=48,
                               negative_pooled_prompt_embeds=drawn(4, 1, 32), true_cfg_scale=1.7)),
    "prompt_2": ("another prompt for T5, 48 tokens, linear time shift",
                 {**SMALL,
                  "scheduler": lambda: tiny.dev_scheduler(time_shift_type="linear", max_shift=2.0)},
                 arguments(prompt_2="an orange fish left of a teal moon at sunset", max_sequence_length=48)),
    "tiny_random_style": ("like Diffusers' own dummy: T5 relu with 8 buckets, CLIP gelu with eos_token_id 2, VAE factor 1",
                          {"transformer": dict(latent_channels=1, seed=24),
                           "t5": dict(feed_forward="relu", buckets=8, hidden=37, layers=3),
                           "clip": dict(activation="gelu", eos=2, hidden=37, layers=3),
                           "vae": dict(widths=(4,), latent_channels=1, groups=1, scaling=1.5035, shift=0.0609)},
                          arguments(width=8, height=8, max_sequence_length=48, num_inference_steps=2)),
    "flux_vae": ("four VAE levels with two layers each and quant convs, 16 latent channels, factor 8",
                 {"transformer": dict(latent_channels=16, seed=25),
                  "vae": dict(widths=(4, 8, 8, 8), layers=2, latent_channels=16, quant_convs=True, scaling=0.3611,
                              shift=0.1159)},
                 arguments(width=64, height=48)),
    "no_vae_attention": ("VAE of three levels without attention in the middle", {**SMALL,
                         "vae": dict(widths=(4, 8, 12), mid_attention=False)}, arguments()),
    "long_prompt": ("prompt longer than both tokenizers allow (cut), Unicode, shift_terminal, one generator, seed 2^32+5",
                    {**SMALL,
                     "scheduler": lambda: tiny.dev_scheduler(shift_terminal=0.1)},
                    arguments(prompt="Ünïcödé 日本語 😀 " + CAPTION * 9, max_sequence_length=96, seed=2**32 + 5)),
    "empty_prompt": ("empty prompt, one step, tiny picture, explicit out_channels",
                     {**SMALL, "transformer": dict(heads=1, out_channels=16, seed=28)},
                     arguments(prompt="", num_inference_steps=1, width=4, height=8, max_sequence_length=7)),
    "karras": ("karras sigmas inside the pipeline", {**SMALL,
               "scheduler": lambda: tiny.schnell_scheduler(use_karras_sigmas=True)},
               arguments(num_inference_steps=5, width=16, height=16)),
}
TRACED = ("dev", "schnell")


def build(parts):
    make = lambda name, default: parts.get(name, default)
    channels = make("transformer", {}).get("latent_channels", 4)
    return tiny.pipeline(
        tiny.transformer(**make("transformer", {})), tiny.t5(**make("t5", {})), tiny.clip(**make("clip", {})),
        tiny.vae(**{"latent_channels": channels, **make("vae", {})}), make("scheduler", tiny.schnell_scheduler)())


def generators(seed):
    """One generator for a number, one per picture for a list."""
    if isinstance(seed, list):
        return [torch.Generator("cpu").manual_seed(s) for s in seed]
    return torch.Generator("cpu").manual_seed(seed)


def recording(function, seen):
    """`function`, keeping what it returns in the list `seen`."""
    def wrapped(*positional, **named):
        result = function(*positional, **named)
        seen.append(result)
        return result
    return wrapped


def run(pipe, call):
    """Call the pipeline; every interesting tensor by name."""
    call = dict(call)
    prompts, starts, steps = [], [], []
    pipe.encode_prompt = recording(pipe.encode_prompt, prompts)
    pipe.prepare_latents = recording(pipe.prepare_latents, starts)

    def after_step(_pipe, _index, _timestep, tensors):
        steps.append(tensors["latents"].clone())
        return {}

    image = pipe(generator=generators(call.pop("seed")), output_type="np", callback_on_step_end=after_step, **call).images
    found = {"prompt_embeds": prompts[0][0], "pooled_prompt_embeds": prompts[0][1], "initial_latents": starts[0][0],
             "image_ids": starts[0][1], "latents": torch.stack(steps), "sigmas": pipe.scheduler.sigmas,
             "timesteps": pipe.scheduler.timesteps, "image": torch.from_numpy(image)}
    if len(prompts) > 1:
        found |= {"negative_prompt_embeds": prompts[1][0], "negative_pooled_prompt_embeds": prompts[1][1]}
    return found


def trace(pipe, found, call):
    """One transformer forward at the first timestep with the output of every block."""
    model, kept, hooks = pipe.transformer, {}, []
    watched = {"x_embedder": model.x_embedder, "context_embedder": model.context_embedder,
               "time_text_embed": model.time_text_embed, "norm_out": model.norm_out, "proj_out": model.proj_out}
    watched |= {f"transformer_blocks.{i}": block for i, block in enumerate(model.transformer_blocks)}
    watched |= {f"single_transformer_blocks.{i}": block for i, block in enumerate(model.single_transformer_blocks)}

    def keep(name):
        def hook(_module, _inputs, output):
            outputs = output if isinstance(output, tuple) else (output,)
            names = (name,) if len(outputs) == 1 else (f"{name}.text", f"{name}.image")
            kept.update({f"trace.{n}": o.clone() for n, o in zip(names, outputs)})
        return hook

    for name, module in watched.items():
        hooks.append(module.register_forward_hook(keep(name)))
    guidance = torch.tensor([call["guidance_scale"]]) if model.config.guidance_embeds else None
    text = found["prompt_embeds"]
    kept["trace.velocity"] = model(
        hidden_states=found["initial_latents"], timestep=found["timesteps"][:1] / 1000, guidance=guidance,
        pooled_projections=found["pooled_prompt_embeds"], encoder_hidden_states=text,
        txt_ids=torch.zeros(text.shape[1], 3), img_ids=found["image_ids"], return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    return kept


def write(folder, about, call, found):
    """golden.json holds the plain arguments; tensor arguments lie in golden.safetensors as argument.NAME."""
    tensors = {name: value for name, value in call.items() if isinstance(value, torch.Tensor)}
    plain = {name: value for name, value in call.items() if name not in tensors and value is not None}
    found = {name: value.contiguous().clone() for name, value in found.items()}
    save_file(found | {f"argument.{name}": value for name, value in tensors.items()}, f"{folder}/golden.safetensors")
    golden = {"about": about, "arguments": plain, "tensor_arguments": sorted(tensors)}
    with open(f"{folder}/golden.json", "w") as file:
        json.dump(golden, file, indent=2, ensure_ascii=False)
        file.write("\n")


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    for name in sys.argv[1:] or CONFIGS:
        about, parts, call = CONFIGS[name]
        folder = os.path.join(OUT, name)
        pipe = tiny.save(build(parts), folder)
        pipe.set_progress_bar_config(disable=True)
        found = run(pipe, call)
        if name in TRACED:
            found |= trace(pipe, found, call)
        write(folder, about, call, found)
        size = sum(os.path.getsize(os.path.join(at, f)) for at, _, files in os.walk(folder) for f in files)
        image = found["image"]
        print(f"{name}: {size // 1024} KB, image {tuple(image.shape)} mean {image.mean():.3f} std {image.std():.3f}")


if __name__ == "__main__":
    main()
