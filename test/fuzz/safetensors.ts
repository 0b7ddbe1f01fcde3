/**
 * Fuzzes the safetensors parser with files that are almost right.
 *
 *     deno run -A test/fuzz/safetensors.ts [--runs N] [--seed N] [--dump FILE]
 *
 * A mutant must be read within its own bytes or refused with a HalftoneError, and quickly. With
 * `--dump` every mutant and verdict is written as a line of JSON, for compare_with_python.py.
 */

import { appendFileSync, writeFileSync } from "node:fs";
import { Buffer } from "node:buffer";
import process from "node:process";
import { parseArgs } from "node:util";
import { HalftoneError } from "../../src/errors.ts";
import { parseSafetensors, SAFETENSORS_DTYPES } from "../../src/io/safetensors.ts";
import { elementCount } from "../../src/tensor/shape.ts";
import { itemSize } from "../../src/tensor/dtype.ts";

/** A small repeatable random source (mulberry32). */
class Random {
  constructor(private state: number) {}

  /** An integer from 0 up to but not including `end`. */
  below(end: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * end) | 0;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)];
  }
}

/** A tensor as the header spells it; any value may have been replaced by nonsense. */
interface Description {
  dtype: unknown;
  shape: unknown;
  data_offsets: unknown;
  [extra: string]: unknown;
}

const NONSENSE: readonly unknown[] = [
  null,
  true,
  "",
  "U8",
  "0",
  0,
  1,
  -1,
  1.5,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  1e300,
  [],
  [0],
  [1, 2],
  [2, 1],
  [0, 0],
  {},
  { a: 1 },
];

/** A fresh copy, because later changes may change it. */
const nonsense = (random: Random): unknown => structuredClone(random.pick(NONSENSE));

/** A header that is right, as pairs, so that names may come twice. */
function goodPairs(random: Random): { pairs: [string, unknown][]; dataBytes: number } {
  const pairs: [string, unknown][] = [];
  let offset = 0;
  for (let i = random.below(5); i >= 0; i--) {
    const [dtype, name] = random.pick(SAFETENSORS_DTYPES);
    const shape = Array.from({ length: random.below(4) }, () => random.below(4));
    const end = offset + elementCount(shape) * itemSize(dtype);
    pairs.push([random.pick(["a", "b", "c.d", "é", "x"]) + i, {
      dtype: name,
      shape,
      data_offsets: [offset, end],
    }]);
    offset = end;
  }
  if (random.below(2) === 0) pairs.push(["__metadata__", { format: "pt" }]);
  return { pairs, dataBytes: offset };
}

type PairMutation = (random: Random, pairs: [string, unknown][]) => void;

const ofTensor =
  (change: (random: Random, tensor: Description) => void): PairMutation => (random, pairs) => {
    const value = random.pick(pairs)[1];
    if (typeof value === "object" && value !== null) change(random, value as Description);
  };

const nudge = (random: Random, list: unknown) => {
  if (!Array.isArray(list) || list.length === 0) return;
  const at = random.below(list.length);
  list[at] = random.below(3) === 0 ? nonsense(random) : Number(list[at]) + random.below(9) - 4;
};

const PAIR_MUTATIONS: readonly PairMutation[] = [
  ofTensor((random, tensor) => nudge(random, tensor.data_offsets)),
  ofTensor((random, tensor) => nudge(random, tensor.shape)),
  ofTensor((random, tensor) => tensor.dtype = random.pick(["U8", "F32", "BF16", "F12", "I64", 3])),
  ofTensor((random, tensor) => tensor[random.pick(["dtype", "shape"])] = nonsense(random)),
  ofTensor((random, tensor) => tensor.data_offsets = nonsense(random)),
  ofTensor((random, tensor) => delete tensor[random.pick(["dtype", "shape", "data_offsets"])]),
  ofTensor((random, tensor) => tensor[random.pick(["extra", "offsets"])] = nonsense(random)),
  (random, pairs) => pairs.push(structuredClone(random.pick(pairs))),
  (random, pairs) => random.pick(pairs)[0] = random.pick(["a0", "__metadata__", "", "b1"]),
  (random, pairs) => random.pick(pairs)[1] = nonsense(random),
  (random, pairs) => void pairs.splice(random.below(pairs.length), 1),
  (random, pairs) => void pairs.sort(() => random.below(3) - 1),
];

const TEXT_PARTS = ['"', "{", "}", "[", "]", ",", ":", " ", "\\", "\\u0061", "0", "-", ".0", "e5"];

function mutateText(random: Random, text: string): string {
  const at = random.below(text.length + 1);
  const rest = text.slice(at + random.below(3));
  return text.slice(0, at) + random.pick(TEXT_PARTS) + rest;
}

/** A file with up to three changes, sometimes none. */
function mutant(random: Random): Uint8Array {
  const { pairs, dataBytes } = goodPairs(random);
  const kind = random.below(8);
  for (let i = random.below(3); i > 0 && kind < 5 && pairs.length > 0; i--) {
    random.pick(PAIR_MUTATIONS)(random, pairs);
  }
  const members = pairs.map((pair) => pair.map((part) => JSON.stringify(part)).join(":"));
  let text = `{${members.join(",")}}`;
  for (let i = random.below(3); i > 0 && kind === 5; i--) text = mutateText(random, text);
  text += " ".repeat(random.below(4));
  const slack = kind === 6 ? random.below(9) - 4 : 0;
  const header = new TextEncoder().encode(text);
  const file = new Uint8Array(8 + header.byteLength + Math.max(0, dataBytes + slack));
  const length = header.byteLength + (kind === 7 ? random.below(9) - 4 : 0);
  new DataView(file.buffer).setBigInt64(0, BigInt(length), true);
  file.set(header, 8);
  return file;
}

/** Whether a file is read; throws when the parser misbehaves. */
function accepted(file: Uint8Array): boolean {
  const start = performance.now();
  try {
    const tensors = parseSafetensors(file);
    const total = [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes.byteLength, 0);
    if (total > file.byteLength) throw new Error("more data than the file has");
    return true;
  } catch (error) {
    if (error instanceof HalftoneError) return false;
    throw error;
  } finally {
    if (performance.now() - start > 1000) console.error("slow: more than a second");
  }
}

function main(): void {
  const { values } = parseArgs({
    args: process.argv.slice(2),
    options: {
      runs: { type: "string", default: "100000" },
      seed: { type: "string", default: "1" },
      dump: { type: "string" },
    },
  });
  const random = new Random(Number(values.seed));
  if (values.dump !== undefined) writeFileSync(values.dump, "");
  let read = 0;
  for (let run = 0; run < Number(values.runs); run++) {
    const file = mutant(random);
    try {
      const verdict = accepted(file);
      if (verdict) read++;
      const line = { hex: Buffer.from(file).toString("hex"), accepted: verdict };
      if (values.dump !== undefined) appendFileSync(values.dump, `${JSON.stringify(line)}\n`);
    } catch (error) {
      console.error(`run ${run}, file ${Buffer.from(file).toString("hex")}`);
      throw error;
    }
  }
  console.log(`${values.runs} mutants: ${read} read, ${Number(values.runs) - read} refused`);
}

main();
