/** Random data of the benchmarks: a block of it, repeated to the end. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  evenFloats,
  normalTensor,
  randomBytes,
  randomLevels,
  repeating,
  uniformBytes,
} from "../../bench/random_values.ts";

/** More than three blocks, and no whole number of them. */
const COUNT = 1_000_003;

test("a block is repeated to the end of an array, and goes around at a prime", () => {
  let length = 0;
  const values = repeating(new Uint16Array(COUNT), (block) => {
    length = block.length;
    for (let at = 0; at < length; at++) block[at] = at % 65521;
  });
  assert.ok(length < COUNT / 3);
  for (let factor = 2; factor ** 2 <= length; factor++) assert.notEqual(length % factor, 0);
  const wrong = values.findIndex((value, at) => value !== (at % length) % 65521);
  assert.equal(wrong, -1);
  assert.equal(repeating(new Uint8Array(0), () => {}).length, 0);
});

test("bytes are random to the end, or what they are to mean", () => {
  const all = randomBytes(COUNT).subarray(-65536);
  assert.equal(new Set(all).size, 256);
  const even = randomBytes(COUNT, (byte) => byte & 254);
  assert.ok(even.every((byte) => byte % 2 === 0));
  assert.deepEqual([...uniformBytes(Uint8Array.of(1, 2), 3)], [1, 2, 1, 2, 1, 2]);
});

test("levels, even and normal numbers have the spread that they say", () => {
  const levels = Uint16Array.from({ length: 256 }, (_, level) => 1000 + level);
  const found = new Set(randomLevels(COUNT, levels).subarray(-65536));
  assert.deepEqual([...found].sort((a, b) => a - b), [...levels]);
  for (const [values, variance] of [[evenFloats(COUNT, 3), 3], [normal(), 1]] as const) {
    const mean = values.reduce((sum, value) => sum + value, 0) / COUNT;
    const square = values.reduce((sum, value) => sum + value * value, 0) / COUNT;
    assert.ok(
      Math.abs(mean) < 0.05 && Math.abs(square / variance - 1) < 0.05,
      `${mean}, ${square}`,
    );
  }
});

function normal(): Float32Array {
  return normalTensor([COUNT]).toFloat32();
}
