/**
 * torch.mean of a contiguous float32 vector on one CPU thread, bit for bit. The order of a float sum
 * shows in its last bits, and bitsandbytes stores such a mean (nested_offset); so the cascade of
 * ATen's SumKernel.cpp is followed: 8 lanes (Vectorized<float> of that kernel), 4 interleaved rows, and
 * up to 4 levels of partial sums.
 */

const LANES = 8;
const ROWS = 4;
const LEVELS = 4;
const WIDTH = LANES * ROWS;
const fround = Math.fround;

/** The mean, as torch computes it with one thread; NaN for no values. */
export function torchMean(values: Float32Array): number {
  return fround(torchSum(values) / values.length);
}

/** The sum, as torch computes it with one thread. */
export function torchSum(values: Float32Array): number {
  const vectors = Math.floor(values.length / LANES);
  const lanes = sumVectors(values, vectors);
  let sum = 0;
  for (let index = vectors * LANES; index < values.length; index++) {
    sum = fround(sum + values[index]);
  }
  for (const lane of lanes) sum = fround(sum + lane);
  return sum;
}

/** Lane-wise sum of the first `vectors` runs of 8. */
function sumVectors(values: Float32Array, vectors: number): Float32Array {
  const steps = Math.floor(vectors / ROWS);
  const rows = cascade(values, steps);
  const sum = rows.slice(0, LANES);
  for (let vector = steps * ROWS; vector < vectors; vector++) add(sum, values, vector * LANES);
  for (let row = 1; row < ROWS; row++) add(sum, rows, row * LANES);
  return sum;
}

/** Sums `steps` runs of 32 into one run of 32, in chunks of chunks so that only like magnitudes meet. */
function cascade(values: Float32Array, steps: number): Float32Array {
  const power = Math.max(4, Math.floor(ceilLog2(steps) / LEVELS));
  const chunk = 2 ** power;
  const levels = Array.from({ length: LEVELS }, () => new Float32Array(WIDTH));
  let step = 0;
  while (step + chunk <= steps) {
    for (const end = step + chunk; step < end; step++) add(levels[0], values, step * WIDTH);
    carry(levels, step, power);
  }
  for (; step < steps; step++) add(levels[0], values, step * WIDTH);
  for (let level = 1; level < LEVELS; level++) add(levels[0], levels[level], 0);
  return levels[0];
}

function carry(levels: readonly Float32Array[], step: number, power: number): void {
  for (let level = 1; level < LEVELS; level++) {
    add(levels[level], levels[level - 1], 0);
    levels[level - 1].fill(0);
    if (Math.floor(step / 2 ** (level * power)) % 2 ** power !== 0) return;
  }
}

function add(sum: Float32Array, values: Float32Array, start: number): void {
  for (let index = 0; index < sum.length; index++) sum[index] += values[start + index];
}

function ceilLog2(value: number): number {
  return value <= 2 ? 1 : 32 - Math.clz32(value - 1);
}
