"""repr() of float32 values, as json.dumps writes them into a quant_state -> python_floats.json

Random values and many whose 17 digits end in a tie, where engines of JavaScript may choose another last digit.

usage: make_python_float_goldens.py
"""
import json
import os
import random
import struct
from decimal import Decimal

HERE = os.path.dirname(os.path.abspath(__file__))


def value_of(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def is_tie(value):
    digits = repr(abs(value)).split("e")[0].replace(".", "").strip("0")
    exact = str(Decimal(abs(value)).scaleb(400)).replace(".", "").split("E")[0].strip("0")
    return len(exact) == len(digits) + 1 and exact.endswith("5")


def main():
    draw = random.Random(0)
    patterns = [draw.getrandbits(31) for _ in range(1000)]
    patterns += [draw.randrange(0x3C000000, 0x40000000) for _ in range(1000)]  # 0.008 to 2, as mean absmax are
    ties = (bits for bits in iter(lambda: draw.randrange(0x3C000000, 0x3F000000), None) if is_tie(value_of(bits)))
    patterns += [next(ties) for _ in range(500)]
    finite = [bits for bits in patterns if bits & 0x7F800000 != 0x7F800000]
    lines = ",\n".join(json.dumps({"bits": bits, "text": repr(value_of(bits))}) for bits in finite)
    with open(f"{HERE}/python_floats.json", "w") as file:
        file.write(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
