/** Seeded random test data with the values that break kernels: outliers, denormals, -0, zero rows. */

/** A small seeded generator (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** An integer in [low, high]. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.uniform() * (high - low + 1));
  }

  /** One of `choices`. */
  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length - 1)];
  }

  /** About normal: the sum of four uniforms, centred, variance 1. */
  normal(): number {
    const sum = this.uniform() + this.uniform() + this.uniform() + this.uniform();
    return (sum - 2) * Math.sqrt(3);
  }
}

/** What test data look like. */
export type Pattern = "normal" | "outliers" | "special" | "zero rows";

/** All patterns. */
export const PATTERNS: readonly Pattern[] = ["normal", "outliers", "special", "zero rows"];

const SPECIAL = [0, -0, 1e-40, -1e-40, 1.4e-45, 1e-38, 1, -1, 65504, -7];

/** float32 values of a matrix with this many columns. */
export function randomValues(
  random: Random,
  count: number,
  columns: number,
  pattern: Pattern = "normal",
): Float32Array {
  const isOutlier = Array.from({ length: columns }, () => random.uniform() < 0.05);
  if (columns > 1) isOutlier[random.integer(0, columns - 1)] = true;
  const zeroRow = random.integer(0, 2);
  return Float32Array.from({ length: count }, (_, index) => {
    const value = random.normal();
    if (pattern === "outliers" && isOutlier[index % columns]) return value * 1000;
    if (pattern === "special" && random.uniform() < 0.3) return random.pick(SPECIAL);
    if (pattern === "zero rows" && Math.floor(index / columns) % 3 === zeroRow) return 0;
    return value;
  });
}
