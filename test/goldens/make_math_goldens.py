"""Golden values of exp, log, sin, cos and pow from mpmath at 400 bits -> math.json.

Each function is one base64 string of little-endian float64 rows (arguments..., nearest double, remainder).
"""
import base64
import json
import pathlib
import random
import struct

import mpmath as mp

mp.mp.prec = 400
rng = random.Random(20)


def rows(function, arguments):
    out = b""
    for point in arguments:
        exact = function(*[mp.mpf(x) for x in point])
        nearest = float(exact)
        out += struct.pack(f"<{len(point) + 2}d", *point, nearest, float(exact - mp.mpf(nearest)))
    return base64.b64encode(out).decode()


def signed(x):
    return rng.choice((-1, 1)) * x


near_pi = [float(mp.pi / 2 * n) for n in (1, 2, 3, 7, 100, 12345, 600000)]
# The double closest to a multiple of pi/2 (Muller, Elementary Functions, table 11.1).
near_pi.append(6381956970095103 * 2.0**797)
angles = (
    [(signed(rng.uniform(0, 0.8)),) for _ in range(60)]
    + [(signed(rng.uniform(0, 1000)),) for _ in range(120)]
    + [(signed(10 ** rng.uniform(-300, 308)),) for _ in range(120)]
    + [(signed(x),) for x in near_pi]
)
exponents = (
    [(rng.uniform(-745, 709.7),) for _ in range(150)]
    + [(signed(10 ** rng.uniform(-18, 0)),) for _ in range(100)]
    + [(x,) for x in (0.0, 1.0, -1.0, 0.5, 1.15, 0.63, 709.78, -708.3, -744.4)]
)
logarithms = (
    [(10 ** rng.uniform(-323, 308),) for _ in range(120)]
    + [(1 + signed(10 ** rng.uniform(-15, -0.5)),) for _ in range(120)]
    + [(x,) for x in (5e-324, 2.2250738585072014e-308, 0.5, 2.0, 10000.0, 1.7976931348623157e308, 2**0.5)]
)
powers = (
    [(10000.0, -i / 64) for i in range(64)]
    + [(10 ** rng.uniform(-5, 5), rng.uniform(-20, 20)) for _ in range(150)]
    + [(1 + signed(10 ** rng.uniform(-15, -1)), signed(10 ** rng.uniform(0, 2.5))) for _ in range(60)]
    + [(-2.5, 3.0), (-2.5, 4.0), (0.25, 0.5), (7.0, 1 / 7), (1e-300, 1.01), (5e-324, 0.5)]
)
goldens = {
    "exp": rows(mp.exp, exponents),
    "log": rows(mp.log, logarithms),
    "sin": rows(mp.sin, angles),
    "cos": rows(mp.cos, angles),
    "pow": rows(mp.power, powers),
}
path = pathlib.Path(__file__).with_name("math.json")
path.write_text(json.dumps(goldens, indent=1) + "\n")
print({name: len(text) for name, text in goldens.items()})
