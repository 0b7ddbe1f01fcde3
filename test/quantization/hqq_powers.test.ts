/** The arithmetic of the kernel that searches HQQ's zeros; make_torchao_goldens.py int4 made the hash. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  instantiateQuantize,
  type QuantizeExports,
  quantizeModule,
} from "../../src/quantization/wasm_kernels.ts";
import { fusedMultiplyAdd } from "../../src/tensor/float32_math.ts";
import { shortHash } from "./method_support.ts";
import { randomValues, readGolden } from "./support.ts";

interface Exports extends QuantizeExports {
  powers(values: number, count: number, exact: number): void;
  multiply_add(lanes: number, exact: number): number;
}

const memory = new WebAssembly.Memory({ initial: 4, maximum: 16384 });
const exports = await instantiateQuantize(await quantizeModule({ shared: false }), memory);
const { __heap_base, powers, multiply_add } = exports as Exports;
const ADDRESS = Math.ceil(__heap_base.value / 16) * 16;

const QUICK = 0, EXACT = 1;

function powersOf(bases: Float32Array, way: number): Float32Array {
  const values = new Float32Array(memory.buffer, ADDRESS, bases.length);
  values.set(bases);
  powers(ADDRESS, bases.length, way);
  return values.slice();
}

test("four powers at once equal PyTorch's to the last bit", async () => {
  const golden = await readGolden<{ powers: string }>("torchao_int4.json");
  const bases = Float32Array.from(
    { length: 4096 },
    (_, index) => (index * 7919 % 20011 + 1) / 4096 * 2 ** -(index % 40),
  );
  for (const way of [QUICK, EXACT]) {
    assert.equal(shortHash(new Uint8Array(powersOf(bases, way).buffer)), golden.powers);
    const ends = powersOf(Float32Array.of(1, Infinity, 1, Infinity), way);
    assert.deepEqual([...ends], [1, 0, 1, 0]);
  }
});

/** a * b + c of four lanes, and whether the kernel doubts it. */
function fused(lanes: readonly (readonly number[])[], way: number) {
  const values = new Float32Array(memory.buffer, ADDRESS, 12);
  lanes.forEach((numbers, at) => values.set(numbers, 4 * at));
  const doubtful = multiply_add(ADDRESS, way) !== 0;
  return { found: [...values.subarray(0, 4)], doubtful };
}

test("a sum just beside the middle of two floats is rounded once, or doubted", () => {
  // Squares that lie in the middle: 1 + 2^-11 + 2^-24 and 1 + 3 * 2^-11 + 9 * 2^-24.
  for (const factor of [1 + 2 ** -12, 1 + 3 * 2 ** -12]) {
    for (const sign of [1, -1]) {
      const lanes = [
        [factor, 1.5, sign * factor, 2],
        [sign * factor, 1.25, factor, 3],
        [2 ** -80, 4, -(2 ** -80), 0],
      ];
      const rounded = (tail: number) => {
        const product = factor * factor;
        return product + (tail > 0 ? 2 ** -24 : -(2 ** -24)); // the neighbour on the side of the tail
      };
      const expected = [sign * rounded(sign), 5.875, sign * rounded(-sign), 6];
      const { found } = fused(lanes, EXACT);
      assert.deepEqual(found, expected);
      assert.equal(fused(lanes, QUICK).doubtful, true);
    }
  }
});

test("sums of random numbers are rounded once, and hardly any is doubted", () => {
  const numbers = [0, 1, 2].map((seed) => randomValues(4096, 60 + seed));
  let doubts = 0;
  for (let at = 0; at < 4096; at += 4) {
    const lanes = numbers.map((values, index) => {
      const part = [...values.subarray(at, at + 4)];
      return index === 2 ? part.map((value, lane) => value * 2 ** (-8 * lane)) : part;
    });
    const expected = lanes[0].map((a, lane) => fusedMultiplyAdd(a, lanes[1][lane], lanes[2][lane]));
    assert.deepEqual(fused(lanes, EXACT).found, expected);
    const { found, doubtful } = fused(lanes, QUICK);
    if (doubtful) doubts++;
    else assert.deepEqual(found, expected);
  }
  assert.ok(doubts < 10, `${doubts}`);
});
