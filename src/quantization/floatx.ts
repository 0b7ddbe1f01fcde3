/** Small floats of 3 to 7 bits without infinity or NaN, as torchao's fpx (custom_fp_utils.py). */

import { roundToEven } from "./rounding.ts";

/** A small float: sign, exponent, mantissa. */
export interface FloatxFormat {
  /** All bits, with the sign. */
  readonly bits: number;
  /** Bits of the exponent; its bias is half its range. */
  readonly exponentBits: number;
  /** Bits of the mantissa, without the hidden one. */
  readonly mantissaBits: number;
  /** The largest value. */
  readonly max: number;
}

/** The format of so many exponent and mantissa bits. */
export function floatxFormat(exponentBits: number, mantissaBits: number): FloatxFormat {
  const bits = 1 + exponentBits + mantissaBits;
  const format = { bits, exponentBits, mantissaBits, max: 0 };
  return { ...format, max: magnitudeOf(format, 2 ** (bits - 1) - 1) };
}

/** The formats torchao takes for a bare width. */
export const FLOATX_FORMATS = {
  fp3: floatxFormat(1, 1),
  fp4: floatxFormat(2, 1),
  fp5: floatxFormat(2, 2),
  fp6: floatxFormat(3, 2),
  fp7: floatxFormat(3, 3),
} as const;

/** The values of all codes. */
export function floatxTable(format: FloatxFormat): Float32Array {
  const half = 2 ** (format.bits - 1);
  return Float32Array.from({ length: 2 * half }, (_, code) => {
    return code < half ? magnitudeOf(format, code) : -magnitudeOf(format, code - half);
  });
}

/** The code nearest to a float32 value; ties to even, what is too large becomes the largest. */
export function floatxCode(format: FloatxFormat, value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 2 ** (format.bits - 1) : 0;
  const size = Math.abs(value);
  if (size >= format.max) return sign + 2 ** (format.bits - 1) - 1;
  const least = 1 - biasOf(format);
  const exponent = Math.max(exponentOf(size), least);
  const steps = roundToEven(size * 2 ** (format.mantissaBits - exponent));
  return sign + (exponent - least) * 2 ** format.mantissaBits + steps;
}

const encodeTables = new Map<string, Uint8Array>();

/**
 * Codes by the upper half of a float32 and whether the lower half is not zero, as in small_float.ts:
 * `table[(bits >>> 16) * 2 + (lower half is not 0)]`. The half has more bits than any mantissa here.
 */
export function floatxEncodeTable(format: FloatxFormat): Uint8Array {
  const key = `${format.exponentBits},${format.mantissaBits}`;
  const known = encodeTables.get(key);
  if (known) return known;
  const sample = new Uint32Array(1);
  const value = new Float32Array(sample.buffer);
  const table = Uint8Array.from({ length: 2 ** 17 }, (_, index) => {
    sample[0] = (index >>> 1) << 16 | index & 1;
    return Number.isNaN(value[0]) ? 0 : floatxCode(format, value[0]);
  });
  encodeTables.set(key, table);
  return table;
}

function magnitudeOf(
  format: Pick<FloatxFormat, "exponentBits" | "mantissaBits">,
  code: number,
): number {
  const ones = 2 ** format.mantissaBits;
  const field = Math.floor(code / ones);
  const mantissa = code % ones + (field === 0 ? 0 : ones);
  return mantissa * 2 ** (Math.max(field, 1) - biasOf(format) - format.mantissaBits);
}

function biasOf({ exponentBits }: { readonly exponentBits: number }): number {
  return 2 ** (exponentBits - 1) - 1;
}

const single = new Float32Array(1);
const word = new Uint32Array(single.buffer);

/** The exponent of a float32; less than that of any small float for subnormals and zero. */
function exponentOf(size: number): number {
  single[0] = size;
  return (word[0] >>> 23) - 127;
}
