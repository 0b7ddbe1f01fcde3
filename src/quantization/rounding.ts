/** Rounding as PyTorch's CPU kernels do it: every result of a half-precision op is rounded to its type. */

import type { DType } from "../tensor/dtype.ts";
import type { FloatType } from "./encode_rule.ts";

/** Rounds a number to a type's nearest value, ties to even. */
export type Rounder = (value: number) => number;

/** Adding and subtracting this rounds a double below 2^51 to an integer, half to even. */
const INTEGER = 6755399441055744;

/** The nearest integer, half to even, as torch.round. */
export function roundToEven(value: number): number {
  return Math.abs(value) < 2 ** 51 ? value + INTEGER - INTEGER : value;
}

/** The type that results are rounded to; other types than the 16-bit ones compute in float32. */
export function floatTypeOf(dtype: DType): FloatType {
  return dtype === "bfloat16" || dtype === "float16" ? dtype : "float32";
}

/** The rounder of float32, bfloat16 or float16; other types compute in float32. */
export function rounderOf(dtype: DType): Rounder {
  if (dtype === "bfloat16") return roundToBfloat16;
  return dtype === "float16" ? roundToFloat16 : Math.fround;
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

function roundToBfloat16(value: number): number {
  float[0] = value;
  const word = bits[0];
  if ((word & 0x7f800000) === 0x7f800000) return float[0];
  bits[0] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

const FLOAT16_LIMIT = 65520; // halfway to the next power, from where float16 overflows

function roundToFloat16(value: number): number {
  const single = Math.fround(value);
  const size = Math.abs(single);
  if (!(size < FLOAT16_LIMIT)) return Number.isNaN(single) ? NaN : Math.sign(single) * Infinity;
  float[0] = size;
  const exponent = Math.max((bits[0] >>> 23) - 127, -14);
  const step = 2 ** (exponent - 10);
  return Math.sign(single) * roundToEven(size / step) * step; // keeps the sign of zero
}

/** The smallest normal number of a type, the least scale of torchao's affine quantizers. */
export function smallestNormal(dtype: DType): number {
  return dtype === "float16" ? 2 ** -14 : 2 ** -126;
}
