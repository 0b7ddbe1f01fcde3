/** Kernels that find values and results in their memory, as workers run them, and what they leave alone. */

import assert from "node:assert/strict";
import {
  type KernelJob,
  PIECE,
  resultBytes,
  valueBytes,
} from "../../src/quantization/kernel_job.ts";
import {
  areaBytes,
  instantiateQuantize,
  kernelsInPlace,
  quantizeModule,
} from "../../src/quantization/wasm_kernels.ts";

const AREA = 2 ** 17;
const VALUES = 2 ** 22;
const GUARD = 64;
const UNTOUCHED = 0xa5;

const memory = new WebAssembly.Memory({ initial: 256, maximum: 16384 }); // 16 MiB
const exports = await instantiateQuantize(await quantizeModule({ shared: false }), memory);
const kernels = kernelsInPlace(exports, memory, AREA);

/** Where the module's own data end. */
export const HEAP_BASE: number = exports.__heap_base.value;

/** What is made of values that begin at an element of a matrix and end with it: the last piece first. */
export function resultInPlace(job: KernelJob, input: Uint8Array, start: number): Uint8Array {
  assert.ok(AREA + areaBytes(job) < VALUES);
  const values = new Uint8Array(memory.buffer, VALUES, input.length);
  values.set(input);
  const length = resultBytes(job, start + input.length / valueBytes(job.values));
  const from = Math.ceil((VALUES + input.length + GUARD) / 64) * 64;
  const guarded = new Uint8Array(memory.buffer, from, GUARD + length + GUARD).fill(UNTOUCHED);
  const result = new Uint8Array(memory.buffer, from + GUARD, length).fill(0);
  const step = PIECE * valueBytes(job.values);
  for (let at = Math.floor((input.length - 1) / step) * step; at >= 0; at -= step) {
    const element = start + at / valueBytes(job.values);
    assert.ok(kernels.run(job, element, values.subarray(at, at + step), result));
  }
  assert.ok(guarded.subarray(0, GUARD).every((byte) => byte === UNTOUCHED), "bytes before it");
  assert.ok(guarded.subarray(GUARD + length).every((byte) => byte === UNTOUCHED), "bytes behind");
  return result;
}
