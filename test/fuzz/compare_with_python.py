"""Compare verdicts of our safetensors parser with those of the Python (Rust) library.

    deno task fuzz --executions 20000 --dump mutants.jsonl
    python test/fuzz/compare_with_python.py mutants.jsonl

What we read, the library must read. What it reads and we refuse is counted by reason; only the
reasons listed in STRICTER are allowed. (The format's own README forbids equal keys and a header that
does not start with a brace; the library, as of 0.8, lets both pass.)
"""

import collections
import json
import sys

import safetensors

#: Where we are stricter on purpose.
STRICTER = {
    "equal keys",
    "unknown field",
    "null metadata",
    "leading space",
    "dimension over 2^31",
    "a type that no model has",
}


def python_accepts(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
        return True
    except safetensors.SafetensorError:
        return False


def unique(pairs: list) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise KeyError("equal keys")
    return dict(pairs)


def reason(data: bytes) -> str:
    text = data[8 : 8 + int.from_bytes(data[:8], "little")]
    if not text.startswith(b"{"):
        return "leading space"
    try:
        header = json.loads(text, object_pairs_hook=unique)
    except KeyError:
        return "equal keys"
    if "__metadata__" in header and header["__metadata__"] is None:
        return "null metadata"
    tensors = [value for key, value in header.items() if key != "__metadata__"]
    if any(set(tensor) - {"dtype", "shape", "data_offsets"} for tensor in tensors):
        return "unknown field"
    if any(dimension > 2**31 for tensor in tensors for dimension in tensor["shape"]):
        return "dimension over 2^31"
    if any(tensor["dtype"] == "F4" for tensor in tensors):
        return "a type that no model has"
    return "other"


def main() -> None:
    counts: collections.Counter[str] = collections.Counter()
    faults = []
    for line in open(sys.argv[1]):
        record = json.loads(line)
        data = bytes.fromhex(record["hex"])
        theirs = python_accepts(data)
        if theirs == record["accepted"]:
            counts["agree: read" if theirs else "agree: refused"] += 1
        elif record["accepted"]:
            faults.append(("we read what the library refuses", record["hex"]))
        else:
            why = reason(data)
            counts[f"we refuse: {why}"] += 1
            if why not in STRICTER:
                faults.append((why, record["hex"]))
    for key, count in sorted(counts.items()):
        print(f"{count:8} {key}")
    for why, mutant in faults[:10]:
        print("FAULT", why, mutant)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
