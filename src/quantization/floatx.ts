/** Small floats of 3 to 7 bits without infinity or NaN, as torchao's fpx (custom_fp_utils.py). */

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
