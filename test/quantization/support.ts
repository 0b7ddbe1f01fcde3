/** What the tests of this folder share. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type ErrorCode, HalftoneError } from "../../src/errors.ts";
import { type Checkpoint, openCheckpoint } from "../../src/io/checkpoint.ts";
import type { NamedTensor, TensorReader } from "../../src/quantization/quantizer.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

/** The folder of golden files. */
export const GOLDENS = new URL("../goldens/", import.meta.url).pathname;

/** Parses a JSON file of the goldens. */
export async function readGolden<T>(name: string): Promise<T> {
  return JSON.parse(await readFile(`${GOLDENS}${name}`, "utf8")) as T;
}

/** SHA-256 in hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The integer recipe of make_bitsandbytes_goldens.py: multiples of 1/4096, every 97th 16 times larger. */
export function recipe(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => {
    const k = (i * 7919 + (i % 1009) ** 2 * 31) % 20011 - 10005;
    return k / 4096 * (i % 97 === 0 ? 16 : 1);
  });
}

/** A float tensor of the values, rounded to `dtype`. */
export function tensorOf(values: Float32Array, shape: number[], dtype: DType = "float32") {
  return HostTensor.fromFloat32(values, shape).cast(dtype);
}

/** Uniform values in [-scale, scale), the same on every run. */
export function randomValues(count: number, seed: number, scale = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * scale;
  });
}

/** Opens checkpoints for an action and closes them after it. */
export async function withCheckpoints(
  paths: readonly string[],
  action: (...checkpoints: Checkpoint[]) => Promise<void>,
): Promise<void> {
  const checkpoints: Checkpoint[] = [];
  try {
    for (const path of paths) checkpoints.push(await openCheckpoint(path));
    await action(...checkpoints);
  } finally {
    for (const checkpoint of checkpoints) await checkpoint.close();
  }
}

/** A checkpoint in memory. */
export function memoryReader(tensors: Iterable<NamedTensor>): TensorReader {
  const entries = new Map([...tensors].map(({ name, tensor }) => [name, tensor] as const));
  return { entries, read: (name) => Promise.resolve(entries.get(name)!) };
}

/** The tensors of two lists must agree in order, name, type, shape and bytes. */
export function assertSameTensors(
  actual: readonly NamedTensor[],
  expected: readonly NamedTensor[],
): void {
  assert.deepEqual(actual.map((t) => t.name), expected.map((t) => t.name));
  actual.forEach(({ name, tensor }, i) => assertSameTensor(name, tensor, expected[i].tensor));
}

/** Type, shape and bytes must agree. */
export function assertSameTensor(name: string, actual: HostTensor, expected: HostTensor): void {
  assert.equal(actual.dtype, expected.dtype, `${name}: dtype`);
  assert.deepEqual([...actual.shape], [...expected.shape], `${name}: shape`);
  assert.equal(sha256(actual.bytes), sha256(expected.bytes), `${name}: bytes`);
}

/** The action must fail with this code, and with a message that matches. */
export async function assertFails(
  action: () => unknown,
  code: ErrorCode,
  message: RegExp,
): Promise<void> {
  await assert.rejects(async () => await action(), (error) => {
    assert.ok(error instanceof HalftoneError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

/** A pause that never yields. */
export async function noPause(): Promise<void> {}
