/**
 * ModelOpt's "mse" algorithm for FP8 weights (calib/mse.py): of 39 multiples of the largest |w|, from 1/4 to 4,
 * the one with the least squared error of w against
 *
 *     s = 448 / amax,  w' = e4m3(clamp(w * s, -448, 448)) * (1 / s)
 *
 * computed in float32. Errors are added up in float64 here, in float32 there: of two multiples whose errors
 * differ in the last bits, the other one may be chosen.
 */

import type { HostTensor } from "../tensor/host_tensor.ts";
import { floatSlices } from "./float_slices.ts";
import { forEachGroup } from "./group_runs.ts";
import { mapGroups } from "./groups.ts";
import { fp8Scale } from "./modelopt_scales.ts";
import type { Pause } from "./pause.ts";
import { rounderOf } from "./rounding.ts";

const fround = Math.fround;

const FIRST = 0.25;
const LAST = 4;
/** ceil((4 - 1/4) / 0.1) + 1. */
const STEPS = 39;

/** As torch.linspace has them, which counts the second half from the end, and rounds once. */
const MULTIPLIERS: Float32Array = Float32Array.from({ length: STEPS }, (_, index) => {
  const step = fround((LAST - FIRST) / (STEPS - 1));
  return index < STEPS / 2
    ? fround(FIRST + step * index)
    : fround(LAST - step * (STEPS - 1 - index));
});

/** The chosen ranges of all groups, in the weight's type, from the largest |w| of each. */
export async function mseAmax(
  dense: HostTensor,
  amax: Float32Array,
  groupSize: number,
  pause: Pause,
): Promise<Float32Array> {
  const best = new Uint8Array(amax.length);
  const losses = new Float64Array(STEPS);
  // PyTorch keeps the product of two scalars in float32.
  const candidate = amax.length === 1 ? fround : rounderOf(dense.dtype);
  for (const { start, values } of floatSlices(dense, 1)) {
    forEachGroup(start, values.length, groupSize, (group, begin, end) => {
      if ((start + begin) % groupSize === 0) losses.fill(0);
      for (let step = 0; step < STEPS; step++) {
        const range = candidate(fround(amax[group] * MULTIPLIERS[step]));
        losses[step] += squaredError(values, begin, end, range);
      }
      best[group] = losses.indexOf(Math.min(...losses));
    });
    await pause();
  }
  const round = rounderOf(dense.dtype);
  return mapGroups(amax, (size, group) => round(fround(size * MULTIPLIERS[best[group]])));
}

const float = new Float32Array(1);
const word = new Int32Array(float.buffer);
/** The exponent of the least normal number of e4m3, 2^-6, in its place in a float32. */
const LEAST_EXPONENT = (127 - 6) << 23;

function squaredError(values: Float32Array, begin: number, end: number, range: number): number {
  const scale = fp8Scale(range);
  const inverse = fround(1 / scale);
  let sum = 0;
  for (let index = begin; index < end; index++) {
    const value = Math.abs(values[index]);
    const size = Math.min(fround(value * scale), 448);
    // Adding a power of two that leaves three bits of the mantissa rounds to them, half to even.
    float[0] = size;
    word[0] = Math.max(word[0] & 0x7f800000, LEAST_EXPONENT) + (20 << 23);
    const rounder = float[0];
    const rounded = fround(fround(size + rounder) - rounder);
    const error = fround(value - fround(rounded * inverse));
    sum += fround(error * error);
  }
  return sum;
}
