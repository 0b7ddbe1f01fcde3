/**
 * The small float formats (float16, float8_e4m3fn, float8_e5m2) and look-up tables for them, made
 * from their definition. bfloat16 is a truncated float32 and needs none.
 */

/** A float format of at most 16 bits: sign, exponent, mantissa. */
export interface SmallFloat {
  /** Bits of the exponent; its bias is half its range. */
  readonly exponentBits: number;
  /** Bits of the mantissa, without the hidden one. */
  readonly mantissaBits: number;
  /** Whether the largest exponent means infinity and NaN, as in IEEE 754; e4m3fn has only NaN there. */
  readonly hasInfinity: boolean;
}

/** The formats by the name of their dtype. */
export const SMALL_FLOATS = {
  float16: { exponentBits: 5, mantissaBits: 10, hasInfinity: true },
  float8_e4m3fn: { exponentBits: 4, mantissaBits: 3, hasInfinity: false },
  float8_e5m2: { exponentBits: 5, mantissaBits: 2, hasInfinity: true },
} as const satisfies Record<string, SmallFloat>;

const decodeTables = new Map<SmallFloat, Uint32Array>();
const encodeTables = new Map<SmallFloat, Uint8Array>();

/** Float32 bit patterns of every code, [2^bits]. */
export function decodeTable(format: SmallFloat): Uint32Array {
  return remember(decodeTables, format, () => {
    const codes = 2 ** (1 + format.exponentBits + format.mantissaBits);
    return Uint32Array.from({ length: codes }, (_, code) => decodeBits(format, code));
  });
}

/**
 * 8-bit codes by the upper half of a float32 and a sticky bit for the lower half, [2^17]:
 * `table[(bits >>> 16) * 2 + (lower half is not 0)]`.
 */
export function encodeTable(format: SmallFloat): Uint8Array {
  return remember(encodeTables, format, () => {
    const sample = new Uint32Array(1);
    const value = new Float32Array(sample.buffer);
    return Uint8Array.from({ length: 2 ** 17 }, (_, index) => {
      sample[0] = ((index >>> 1) << 16) | (index & 1);
      return encode(format, sample[0] >>> 31, Math.abs(value[0]));
    });
  });
}

function remember<Table>(
  tables: Map<SmallFloat, Table>,
  format: SmallFloat,
  make: () => Table,
): Table {
  let table = tables.get(format);
  if (table === undefined) tables.set(format, table = make());
  return table;
}

function bias(format: SmallFloat): number {
  return 2 ** (format.exponentBits - 1) - 1;
}

/** The first code (sign aside) that is not a finite number. */
function firstSpecial(format: SmallFloat): number {
  const codes = 2 ** (format.exponentBits + format.mantissaBits);
  return format.hasInfinity ? codes - 2 ** format.mantissaBits : codes - 1;
}

function decodeBits(format: SmallFloat, code: number): number {
  const width = format.exponentBits + format.mantissaBits;
  const sign = code >> width ? 0x80000000 : 0;
  const magnitude = code & (2 ** width - 1);
  if (magnitude < firstSpecial(format)) {
    return (floatBits(finiteValue(format, magnitude)) | sign) >>> 0;
  }
  // Infinity, or a NaN that keeps its payload and becomes quiet, as the processors' own decoders do.
  const mantissa = magnitude & (2 ** format.mantissaBits - 1);
  const payload = mantissa === 0 ? 0 : 0x400000 | (mantissa << (23 - format.mantissaBits));
  return (0x7f800000 | payload | sign) >>> 0;
}

function finiteValue(format: SmallFloat, magnitude: number): number {
  const exponent = magnitude >> format.mantissaBits;
  const mantissa = magnitude & (2 ** format.mantissaBits - 1);
  const unit = 2 ** (Math.max(exponent, 1) - bias(format) - format.mantissaBits);
  return (exponent === 0 ? mantissa : mantissa + 2 ** format.mantissaBits) * unit;
}

function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0];
}

function encode(format: SmallFloat, sign: number, value: number): number {
  const signBit = sign << (format.exponentBits + format.mantissaBits);
  const nan = 2 ** (format.exponentBits + format.mantissaBits) - 1;
  if (Number.isNaN(value)) return signBit | nan;
  return signBit | Math.min(nearestCode(format, value), overflowCode(format));
}

/** What too large a number becomes: infinity, or without one the largest number (PyTorch 2.12 on). */
function overflowCode(format: SmallFloat): number {
  return format.hasInfinity ? firstSpecial(format) : firstSpecial(format) - 1;
}

/** The nearest code, ties to even, as if the exponent had no end. */
function nearestCode(format: SmallFloat, value: number): number {
  const overflow = firstSpecial(format);
  if (value >= finiteValue(format, overflow)) return overflow;
  let low = 0; // the largest code whose value is not above `value`: codes are ordered as values are
  let high = overflow;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (finiteValue(format, middle) <= value) low = middle;
    else high = middle;
  }
  const below = value - finiteValue(format, low);
  const above = finiteValue(format, high) - value;
  if (below === above) return low % 2 === 0 ? low : high;
  return below < above ? low : high;
}
