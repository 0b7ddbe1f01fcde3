/** One step between two noise levels, in the float32 arithmetic of PyTorch. */

import { HalftoneError } from "../errors.ts";
import type { TorchGenerator } from "../tensor/random.ts";

const f32 = Math.fround;

/** The noise level of each element now and after the step. */
export interface NoiseLevels {
  /** Before the step. */
  current(index: number): number;
  /** After the step. */
  next(index: number): number;
}

/** x + (next - current) * v; per token Diffusers takes current - next. */
export function eulerStep(
  velocity: Float32Array,
  sample: Float32Array,
  levels: NoiseLevels,
  perToken: boolean,
): Float32Array {
  return sample.map((x, i) => {
    const difference = f32(levels.next(i) - levels.current(i));
    return x + f32((perToken ? -difference : difference) * velocity[i]);
  });
}

/** The clean sample the velocity points at, with fresh noise of the next level. */
export function renewNoise(
  velocity: Float32Array,
  sample: Float32Array,
  levels: NoiseLevels,
  generator: TorchGenerator | undefined,
): Float32Array {
  if (!generator) {
    throw new HalftoneError("invalid_argument", "Cannot sample stochastically", {
      field: "generator",
      expected: "a TorchGenerator",
    });
  }
  const noise = generator.randnValues(sample.length);
  return sample.map((x, i) => {
    const clean = f32(x - f32(levels.current(i) * velocity[i]));
    const next = levels.next(i);
    return f32(f32(1 - next) * clean) + f32(next * noise[i]);
  });
}
