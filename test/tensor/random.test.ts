/** TorchGenerator against torch itself, by the hash of every byte drawn. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { HalftoneError } from "../../src/errors.ts";
import { fusedMultiplyAdd } from "../../src/tensor/float32_math.ts";
import { type NoiseDType, TorchGenerator } from "../../src/tensor/random.ts";

interface Case {
  seed: string;
  draws: [kind: "rand" | "randn", counts: number[], dtype: NoiseDType][];
  sha256: string;
  first: number[];
  last: number;
}

/** Tensors of several sizes drawn in turn from one generator. */
interface Drawn {
  kind: "rand" | "randn";
  seed: number;
  sizes: number[];
  dtype?: NoiseDType | "float64";
  sha256: string;
}

const goldens: { torch: string; cases: Case[] } = JSON.parse(
  readFileSync(new URL("../goldens/random.json", import.meta.url), "utf8"),
);

function check(golden: Case): void {
  const generator = new TorchGenerator(BigInt(golden.seed));
  const hash = createHash("sha256");
  const values: number[] = [];
  let last = NaN;
  for (const [kind, counts, dtype] of golden.draws) {
    for (const count of counts) {
      const tensor = kind === "rand" ? generator.rand([count]) : generator.randn([count], dtype);
      assert.equal(tensor.dtype, dtype);
      hash.update(tensor.bytes);
      values.push(...tensor.toFloat32().subarray(0, Math.max(0, 3 - values.length)));
      last = tensor.toFloat32()[count - 1];
    }
  }
  const label = `seed ${golden.seed}, draws ${JSON.stringify(golden.draws).slice(0, 80)}`;
  assert.deepEqual([...values, last], [...golden.first, golden.last], label);
  assert.equal(hash.digest("hex"), golden.sha256, label);
}

test("normal and uniform draws equal torch's bytes for every seed, size and type", () => {
  assert.ok(goldens.cases.length > 30);
  for (const golden of goldens.cases) check(golden);
});

test("many sizes, drawn once or in turn, equal torch's bytes", () => {
  const url = new URL("../goldens/components/random.json", import.meta.url);
  const records: Drawn[] = JSON.parse(readFileSync(url, "utf8"));
  assert.ok(records.length > 100);
  for (const { kind, sizes, seed, dtype = "float32", sha256 } of records) {
    if (dtype === "float64") continue; // not offered: its last bits are the C library's
    const generator = new TorchGenerator(seed);
    const hash = createHash("sha256");
    for (const size of sizes) {
      const drawn = kind === "rand" ? generator.rand([size]) : generator.randn([size], dtype);
      hash.update(drawn.bytes);
    }
    assert.equal(hash.digest("hex"), sha256, `${kind} ${dtype} ${sizes} with seed ${seed}`);
  }
});

test("the seeds Diffusers' users know give the values they know", () => {
  const published: [number, number[]][] = [
    [0, [-1.1258398294448853, -1.152360200881958, -0.2505785822868347, -0.4338788092136383]],
    [1, [-1.5255959033966064, -0.7502318024635315, -0.6539809107780457]],
    [42, [1.9269152879714966, 1.4872840642929077, 0.9007171988487244, -2.1055209636688232]],
  ];
  for (const [seed, values] of published) {
    const drawn = new TorchGenerator(seed).randn([1, 16, 128, 128]);
    assert.deepEqual(drawn.shape, [1, 16, 128, 128]);
    assert.deepEqual([...drawn.toFloat32().subarray(0, values.length)], values);
  }
});

test("only the low 32 bits of a seed count, and two generators do not disturb each other", () => {
  const one = new TorchGenerator(5);
  const other = new TorchGenerator(2n ** 32n + 5n);
  for (const count of [3, 20, 2]) assert.deepEqual(one.randn([count]), other.randn([count]));
});

test("impossible seeds are refused", () => {
  for (const seed of [0.5, NaN, Infinity, 2 ** 60, 2n ** 64n, -(2n ** 63n) - 1n]) {
    assert.throws(
      () => new TorchGenerator(seed),
      (error) => error instanceof HalftoneError && error.code === "invalid_argument",
    );
  }
});

/** a * b + c in exact rational arithmetic, rounded once to float32. */
function exactFusedMultiplyAdd(a: number, b: number, c: number): number {
  const scaled = (x: number, bits: number) => BigInt(x * 2 ** bits); // exact for the inputs below
  const sum = scaled(a, 40) * scaled(b, 40) + (scaled(c, 80));
  const magnitude = sum < 0n ? -sum : sum;
  const excess = Math.max(0, magnitude.toString(2).length - 24);
  const half = excess > 0 ? 1n << BigInt(excess - 1) : 0n;
  const floor = magnitude >> BigInt(excess);
  const rest = magnitude - (floor << BigInt(excess));
  const up = excess > 0 && (rest > half || (rest === half && (floor & 1n) === 1n));
  return Number(floor + (up ? 1n : 0n)) * 2 ** (excess - 80) * (sum < 0n ? -1 : 1);
}

test("the fused multiply-add rounds once, also where double rounding would differ", () => {
  const f32 = Math.fround;
  let state = 99;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  let twice = 0;
  const compare = (a: number, b: number, c: number) => {
    const expected = exactFusedMultiplyAdd(a, b, c);
    if (f32(a * b + c) !== expected) twice += 1;
    assert.equal(fusedMultiplyAdd(a, b, c), expected, `${a} * ${b} + ${c}`);
  };
  for (let i = 0; i < 20_000; i++) compare(f32(next() - 0.5), f32(next() - 0.5), f32(next() - 0.5));
  // Products just off the middle between two floats: 1 + 2^-24 + 2^-60 and the like.
  for (let i = 1; i < 400; i++) {
    const c = f32(1 + i * 2 ** -23);
    for (const sign of [1, -1]) {
      compare(f32(2 ** -12 + 2 ** -35), sign * f32(2 ** -12 + 2 ** -35), sign * c);
      compare(f32(2 ** -12 - 2 ** -36), f32(2 ** -12 - 2 ** -36), sign * c);
      compare(f32(2 ** -12), f32(2 ** -12), sign * c);
      compare(f32(2 ** -13 + 2 ** -36), f32(2 ** -11 - 2 ** -34), c);
    }
  }
  assert.ok(twice > 100, `only ${twice} cases would have been rounded twice`);
});
