"""Draws of torch's CPU generator -> random.json: hashes, and a few values to look at.

A case is one generator and a list of draws [kind, counts, dtype] from it, one tensor per count;
the hash covers the bytes of all tensors in order.
"""
import hashlib
import json
import pathlib

import torch

torch.set_num_threads(1)


def draw(generator, kind, count, dtype):
    if kind == "rand":
        return torch.rand(count, generator=generator)
    return torch.randn(count, generator=generator, dtype=getattr(torch, dtype))


def case(seed, draws):
    generator = torch.Generator("cpu").manual_seed(seed)
    tensors = [draw(generator, kind, n, dtype) for kind, counts, dtype in draws for n in counts]
    data = b"".join(t.view(torch.uint8).numpy().tobytes() for t in tensors)
    flat = torch.cat([t.float() for t in tensors])
    return {
        "seed": str(seed),
        "draws": draws,
        "sha256": hashlib.sha256(data).hexdigest(),
        "first": flat[:3].tolist(),
        "last": flat[-1].item(),
    }


def normal(*counts, dtype="float32"):
    return [["randn", counts, dtype]]


seeds = [0, 1, 42, 1234567, 2**31 - 1, 2**32 + 7, 2**53 - 1, 2**64 - 1, -3]
cases = []
for seed in seeds:
    cases.append(case(seed, normal(16 * 64 * 16)))
    cases.append(case(seed, [["rand", [1000], "float32"]]))
    cases.append(case(seed, normal(*range(1, 70))))  # odd sizes, and the cached normal across them
cases.append(case(0, normal(1 * 16 * 128 * 128)))
cases.append(case(5, normal(2_000_003)))
cases.append(case(6, normal(*[1 + i % 15 for i in range(1000)])))
cases.append(case(7, normal(3) + normal(100) + [["rand", [5], "float32"]] + normal(4, 1)))
for dtype in ("bfloat16", "float16"):
    cases.append(case(8, normal(4096, dtype=dtype)))
    cases.append(case(9, normal(*range(1, 70), dtype=dtype)))

path = pathlib.Path(__file__).with_name("random.json")
lines = ",\n".join("  " + json.dumps(c) for c in cases)
path.write_text('{"torch": "%s", "cases": [\n%s\n]}\n' % (torch.__version__, lines))
print(len(cases), "cases")
