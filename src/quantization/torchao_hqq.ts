/**
 * Half-quadratic quantization as torchao chooses the zeros of int4 with it (quant_primitives.py), in
 * float32 as on a CPU; on CUDA torchao computes it in float16, and its codes may differ.
 *
 *     q = round(w s + z);  r = (q - z) / s;  e = shrink(w - r);  z = mean of q - (w - e) s
 *
 * is repeated up to 20 times, until the mean of |w - r| over the whole padded weight grows. `s` is the
 * inverse of a scale and stays as the range of the group gave it.
 */

import { powFloat32 } from "../tensor/float32_pow.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { floatSlices } from "./float_slices.ts";
import { forEachGroup } from "./group_runs.ts";
import type { GroupRanges } from "./groups.ts";
import type { Pause } from "./pause.ts";
import { roundToEven } from "./rounding.ts";
import { torchMean } from "./torch_mean.ts";
import { tilePaddedShape } from "./torchao_int4.ts";

const f32 = Math.fround;

const ITERATIONS = 20;
const FIRST_BETA = 10;
const KAPPA = 1.01;
/** The norm's 0.7 less 1. */
const POWER = 0.7 - 1;
/** The largest inverse of a scale, which a group without a range gets. */
export const MOST_INVERSE = 2e4;

/** Inverse scales, and zeros counted in steps: a code is round(w * inverse + zero). */
export interface HqqParameters {
  readonly inverse: Float32Array;
  readonly zero: Float32Array;
}

/** Chooses the parameters of all groups of a dense matrix. */
export async function chooseHqqParameters(
  dense: HostTensor,
  groupSize: number,
  { min, max }: GroupRanges,
  pause: Pause,
): Promise<HqqParameters> {
  const inverse = min.map((low, group) => {
    return Math.min(f32(f32(1 / f32(max[group] - low)) * 15), MOST_INVERSE);
  });
  const zero = min.map((low, group) => roundToEven(f32(-low * inverse[group])));
  const [rows, columns] = tilePaddedShape(dense.shape);
  const errors = new Float32Array(rows * columns); // those of the padding are 0
  let best = 1e4;
  let beta = FIRST_BETA;
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    await refineZeros(dense, groupSize, { inverse, zero }, f32(1 / beta), errors, pause);
    beta *= KAPPA;
    const error = torchMean(errors);
    if (!(error < best)) break;
    best = error;
  }
  return { inverse, zero };
}

/** One turn: the errors before it, and new zeros. */
async function refineZeros(
  dense: HostTensor,
  groupSize: number,
  { inverse, zero }: HqqParameters,
  threshold: number,
  errors: Float32Array,
  pause: Pause,
): Promise<void> {
  const [, columns] = dense.shape;
  const padded = tilePaddedShape(dense.shape)[1];
  const shifted = new Float32Array(groupSize);
  const least = threshold ** (1 / (1 - POWER)) * (1 - 2 ** -12); // surely shrunk to nothing below it
  for (const { start, values } of floatSlices(dense, groupSize)) {
    forEachGroup(start, values.length, groupSize, (group, begin) => {
      const [factor, offset] = [inverse[group], zero[group]];
      const first = start + begin;
      const place = Math.floor(first / columns) * padded + first % columns;
      for (let index = 0; index < groupSize; index++) {
        const value = values[begin + index];
        const code = hqqCode(value, factor, offset);
        const rest = f32(value - f32(f32(code - offset) / factor));
        errors[place + index] = Math.abs(rest);
        const kept = Math.abs(rest) < least ? 0 : shrink(rest, threshold);
        shifted[index] = code - f32(f32(value - kept) * factor);
      }
      zero[group] = torchMean(shifted);
    });
    await pause();
  }
}

/** The code of a value. */
function hqqCode(value: number, inverse: number, zero: number): number {
  const code = roundToEven(f32(f32(value * inverse) + zero));
  return code < 0 ? 0 : code > 15 ? 15 : code;
}

/** The proximal operator of the 0.7 norm. */
function shrink(x: number, threshold: number): number {
  const size = Math.abs(x);
  const shrunk = f32(size - f32(threshold * powFloat32(size, POWER)));
  return shrunk > 0 ? Math.sign(x) * shrunk : 0;
}
