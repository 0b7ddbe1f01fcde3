"""FlowMatchEulerDiscreteScheduler under random options -> scheduler.json.

`tables`: options and arguments of set_timesteps with the resulting sigmas and timesteps (base64 of float32),
or the kind of error. `steps`: samples after each step. `constructed`: the tables of the constructor.
Complements components/scheduler.json, which holds the ordinary options in full.
"""
import base64
import json
import pathlib
import random
import warnings

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging

logging.set_verbosity_error()
warnings.simplefilter("ignore")
rng = random.Random(31)


def packed(tensor):
    return base64.b64encode(tensor.detach().float().contiguous().numpy().tobytes()).decode()


def random_options():
    options = {"shift": rng.choice([1.0, 3.0, 1.15, 0.4, rng.uniform(0.2, 8)])}
    if rng.random() < 0.5:
        options["use_dynamic_shifting"] = True
        options["time_shift_type"] = rng.choice(["exponential", "linear"])
    if rng.random() < 0.3:
        options["shift_terminal"] = rng.choice([0.1, 0.02, rng.uniform(0.01, 0.5)])
    if rng.random() < 0.5:
        options[rng.choice(["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])] = True
    if rng.random() < 0.2:
        options["invert_sigmas"] = True
    if rng.random() < 0.2:
        options["num_train_timesteps"] = rng.choice([500, 1, 37, 2000])
    return options


def random_arguments(options):
    steps = rng.choice([1, 2, 3, 4, 5, 8, 20, 28, 50])
    kind = rng.choice(["count", "sigmas", "sigmas", "timesteps", "both"])
    levels = sorted((rng.uniform(0.001, 1) for _ in range(steps)), reverse=True)
    if rng.random() < 0.5:
        levels = np.linspace(1.0, 1 / steps, steps).tolist()
    scale = options.get("num_train_timesteps", 1000)
    arguments = {}
    if kind == "count":
        arguments["num_inference_steps"] = steps
    if kind in ("sigmas", "both"):
        arguments["sigmas"] = levels
    if kind in ("timesteps", "both"):
        arguments["timesteps"] = [x * scale for x in levels]
    if options.get("use_dynamic_shifting"):
        arguments["mu"] = rng.choice([0.5, 1.15, 0.63, rng.uniform(0.1, 3)])
    return arguments


def table():
    options = random_options()
    arguments = random_arguments(options)
    record = {"options": options, "arguments": arguments}
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    try:
        scheduler.set_timesteps(**arguments)
    except (ValueError, ZeroDivisionError) as error:
        return {**record, "error": str(error)}
    if not scheduler.sigmas.isfinite().all():
        return {**record, "error": "not finite"}
    return {**record, "sigmas": packed(scheduler.sigmas), "timesteps": packed(scheduler.timesteps)}


def constructed(options):
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    return {"options": options, "sigmas": packed(scheduler.sigmas), "timesteps": packed(scheduler.timesteps)}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def steps(options, per_token=False, begin=None):
    """Four steps over a [6, 5] sample; the velocity of step i is drawn with seed 100 + i."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **options)
    scheduler.set_timesteps(6)
    if begin is not None:
        scheduler.set_begin_index(begin)
    generator = torch.Generator().manual_seed(9)
    tokens = torch.tensor([1000.0, 999.0, 500.0, 333.3, 1.0, 0.0])[None] if per_token else None
    sample, after = drawn(1, 1, 6, 5), []
    for i in range(4):
        timestep = scheduler.timesteps[i + (begin or 0)]
        velocity = drawn(100 + i, 1, 6, 5)
        sample = scheduler.step(
            velocity, timestep, sample, generator=generator, per_token_timesteps=tokens, return_dict=False
        )[0]
        after.append(sample)
    return {"options": options, "perToken": per_token, "begin": begin, "after": packed(torch.stack(after))}


def scaled_noise(begin, taken):
    """scale_noise after `taken` steps, with or without a begin index."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    if begin is not None:
        scheduler.set_begin_index(begin)
    sample, noise = drawn(1, 1, 6, 5), drawn(2, 1, 6, 5)
    for i in range(taken):
        scheduler.step(sample, scheduler.timesteps[i + (begin or 0)], sample)
    found = scheduler.scale_noise(sample, scheduler.timesteps[2:3], noise)
    return {"begin": begin, "taken": taken, "result": packed(found)}


goldens = {
    "tables": [table() for _ in range(160)],
    "constructed": [
        constructed(o)
        for o in ({}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True},
                  {"num_train_timesteps": 37, "shift": 1.7})
    ],
    "steps": [
        steps({}), steps({"invert_sigmas": True}), steps({"stochastic_sampling": True}), steps({}, begin=2),
        steps({}, per_token=True), steps({"stochastic_sampling": True}, per_token=True),
    ],
    "scaled_noise": [scaled_noise(*c) for c in ((None, 0), (3, 0), (1, 2), (None, 1))],
}
path = pathlib.Path(__file__).with_name("scheduler.json")
groups = ",\n".join(
    f'"{name}": [\n' + ",\n".join(json.dumps(r) for r in records) + "\n]" for name, records in goldens.items()
)
path.write_text("{" + groups + "}\n")
print({name: len(records) for name, records in goldens.items()})
