/**
 * Half-quadratic quantization as torchao chooses the zeros of int4 with it (quant_primitives.py), in
 * float32 as on a CPU; on CUDA torchao computes it in float16, and its codes may differ.
 *
 *     q = round(w s + z);  r = (q - z) / s;  e = shrink(w - r);  z = mean of q - (w - e) s
 *
 * is repeated up to 20 times, until the mean of |w - r| over the whole padded weight grows. `s` is the
 * inverse of a scale and stays as the range of the group gave it. Kernels do the turns.
 */

import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { type GroupRanges, mapGroups, refuse } from "./groups.ts";
import { jobValues, runKernels } from "./kernel_runs.ts";
import type { Pause } from "./pause.ts";
import { roundToEven } from "./rounding.ts";
import { torchMean } from "./torch_mean.ts";
import { tilePaddedShape } from "./torchao_int4.ts";

const f32 = Math.fround;

const ITERATIONS = 20;
const FIRST_BETA = 10;
const KAPPA = 1.01;
/** The largest inverse of a scale, which a group without a range gets. */
export const MOST_INVERSE = 2e4;

/** Inverse scales, and zeros counted in steps: a code is round(w * inverse + zero). */
export interface HqqParameters {
  readonly inverse: Float32Array;
  readonly zero: Float32Array;
}

/** Chooses the parameters of all groups of a dense matrix; throws `non_finite_weight` naming `name`. */
export async function chooseHqqParameters(
  name: string,
  dense: HostTensor,
  groupSize: number,
  { min, max }: GroupRanges,
  pause: Pause,
): Promise<HqqParameters> {
  const inverse = mapGroups(min, (low, group) => {
    return Math.min(f32(f32(1 / f32(max[group] - low)) * 15), MOST_INVERSE);
  });
  let zero = mapGroups(min, (low, group) => roundToEven(f32(-low * inverse[group])));
  let best = 1e4;
  let beta = FIRST_BETA;
  let result: Uint8Array | undefined;
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    const threshold = f32(1 / beta);
    const values = jobValues(dense);
    const job = { kind: "hqq", values, groupSize, inverse, zero, threshold } as const;
    result = await runKernels({ dense, job, result, refuse: () => refuse(name, dense) }, pause);
    const numbers = new Float32Array(result.buffer, result.byteOffset, result.length / 4);
    zero = numbers.slice(0, zero.length);
    beta *= KAPPA;
    const error = torchMean(padded(numbers.subarray(zero.length), dense.shape));
    if (!(error < best)) break;
    best = error;
  }
  return { inverse, zero };
}

/** The errors with those of the padding, which are 0. */
function padded(errors: Float32Array, shape: Shape): Float32Array {
  const [rows, columns] = tilePaddedShape(shape);
  if (errors.length === rows * columns) return errors;
  const all = new Float32Array(rows * columns);
  for (let row = 0; row < shape[0]; row++) {
    all.set(errors.subarray(row * shape[1], (row + 1) * shape[1]), row * columns);
  }
  return all;
}
