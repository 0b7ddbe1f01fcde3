/** The code tables of bitsandbytes, bit for bit (get_4bit_type and create_dynamic_map of its functional.py). */

/** The two 4-bit types of bitsandbytes. */
export type FourBitType = "nf4" | "fp4";

/** NormalFloat4: quantiles of the normal distribution (QLoRA, Dettmers et al. 2023). */
export const NF4_TABLE: Float32Array = Float32Array.of(
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
);

/** bitsandbytes' own 4-bit float in twelfths (bit 3 is the sign); it is not e2m1. */
export const FP4_TABLE: Float32Array = Float32Array.from(
  [0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3],
  (twelfths) => twelfths / 12,
);

/** The table of a 4-bit type. */
export function fourBitTable(type: FourBitType): Float32Array {
  return type === "nf4" ? NF4_TABLE : FP4_TABLE;
}

/** How a scaled value in [-1, 1] is given a code: `order[i]` where bounds[i - 1] < value <= bounds[i]. */
export interface CodeGrid {
  /** The float32 midpoints between neighbouring values, rising, with +Infinity at the end. */
  readonly bounds: Float32Array;
  /** The codes in order of rising value. */
  readonly order: Uint8Array;
}

/** The codes of FP4 by value; its two zeros keep the order torch.argsort gives them on the CPU. */
const FP4_ORDER = Uint8Array.of(11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3);

/** The grid of a 4-bit type, as the CPU path of bitsandbytes cuts it. */
export function fourBitGrid(type: FourBitType): CodeGrid {
  const order = type === "nf4" ? Uint8Array.from({ length: 16 }, (_, code) => code) : FP4_ORDER;
  return { order, bounds: midpoints(Float32Array.from(order, (code) => fourBitTable(type)[code])) };
}

/** Midpoints of neighbours in float32, as (a + b) / 2, with +Infinity at the end. */
export function midpoints(sorted: Float32Array): Float32Array {
  return sorted.map((value, index) =>
    index + 1 < sorted.length ? Math.fround(value + sorted[index + 1]) / 2 : Infinity
  );
}

let dynamicMap: Float32Array | undefined;

/** The signed 8-bit dynamic map (256 sorted values) that double quantization codes absmax with. */
export function dynamicMapTable(): Float32Array {
  dynamicMap ??= createDynamicMap();
  return dynamicMap;
}

function createDynamicMap(): Float32Array {
  const values = [0, 1];
  for (let exponent = 0; exponent < 7; exponent++) {
    const power = Math.fround(10 ** (exponent - 6));
    const boundaries = linspace(Math.fround(0.1), 1, 2 ** exponent + 1);
    for (let index = 0; index + 1 < boundaries.length; index++) {
      const mean = Math.fround(boundaries[index] + boundaries[index + 1]) / 2;
      values.push(Math.fround(power * mean), -Math.fround(power * mean));
    }
  }
  return Float32Array.from(values).sort();
}

/**
 * torch.linspace in float32 on x86: a float32 step, then one fused multiply-add from the nearer end.
 * Rounding the product separately would change 42 of the 256 entries of the dynamic map.
 */
function linspace(start: number, end: number, count: number): Float32Array {
  const step = Math.fround(Math.fround(end - start) / (count - 1));
  return Float32Array.from(
    { length: count },
    (_, index) => index < count / 2 ? start + step * index : end - step * (count - 1 - index),
  );
}
