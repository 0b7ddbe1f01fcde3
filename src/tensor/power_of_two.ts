/** Exact scaling by powers of two. */

const scratch = new DataView(new ArrayBuffer(8));

/** The biased exponent field of `x`: 0 for subnormals, 2047 for infinities and NaN. */
export function biasedExponent(x: number): number {
  scratch.setFloat64(0, x);
  return (scratch.getUint16(0) >>> 4) & 0x7ff;
}

/** `2^exponent` for exponents from -1022 to 1023. */
export function powerOfTwo(exponent: number): number {
  scratch.setUint32(0, (exponent + 1023) << 20);
  scratch.setUint32(4, 0);
  return scratch.getFloat64(0);
}

/** `x * 2^exponent` for x in [1/2, 2] and exponents from -1100 to 1024: at most one rounding. */
export function scaleByPowerOfTwo(x: number, exponent: number): number {
  if (exponent > 1023) return x * 2 * powerOfTwo(exponent - 1);
  if (exponent < -1021) return x * powerOfTwo(exponent + 200) * powerOfTwo(-200);
  return x * powerOfTwo(exponent);
}
