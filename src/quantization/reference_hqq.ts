/** One turn of half-quadratic quantization in TypeScript; kernels-quantize/src/hqq.rs has the same. */

import { powFloat32 } from "../tensor/float32_pow.ts";
import { forEachGroup } from "./group_runs.ts";
import { HQQ_POWER, type HqqJob } from "./kernel_job.ts";
import { roundToEven } from "./rounding.ts";
import { torchMean } from "./torch_mean.ts";

const f32 = Math.fround;

/** Writes the new zeros and the errors of a piece to their places in the result of the matrix. */
export function hqqTurn(
  { groupSize, inverse, zero, threshold }: HqqJob,
  start: number,
  values: Float32Array,
  result: Uint8Array,
): void {
  const numbers = new Float32Array(result.buffer, result.byteOffset, result.length / 4);
  const errors = numbers.subarray(zero.length + start);
  const shifted = new Float32Array(groupSize);
  forEachGroup(start, values.length, groupSize, (group, begin) => {
    const [factor, offset] = [inverse[group], zero[group]];
    for (let index = 0; index < groupSize; index++) {
      const value = values[begin + index];
      const code = codeOf(value, factor, offset);
      const rest = f32(value - f32(f32(code - offset) / factor));
      errors[begin + index] = Math.abs(rest);
      shifted[index] = code - f32(f32(value - shrink(rest, threshold)) * factor);
    }
    numbers[group] = torchMean(shifted);
  });
}

function codeOf(value: number, inverse: number, zero: number): number {
  const code = roundToEven(f32(f32(value * inverse) + zero));
  return code < 0 ? 0 : code > 15 ? 15 : code;
}

/** The proximal operator of the 0.7 norm. */
function shrink(x: number, threshold: number): number {
  const size = Math.abs(x);
  const shrunk = f32(size - f32(threshold * powFloat32(size, HQQ_POWER)));
  return shrunk > 0 ? Math.sign(x) * shrunk : 0;
}
