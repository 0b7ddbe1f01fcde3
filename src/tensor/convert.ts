/**
 * Exact conversions between element types and float32, as PyTorch's `.to(dtype)` does them: rounding
 * to nearest even, float16 and float8_e5m2 overflow to infinity. float8_e4m3fn has no infinity and
 * saturates at 448, as PyTorch does since 2.12 (before, it gave NaN). Bytes are little-endian, as in
 * every checkpoint and on every machine JavaScript engines run on.
 */

import { type DType, itemSize } from "./dtype.ts";
import { decodeTable, encodeTable, SMALL_FLOATS } from "./small_float.ts";

/** The values of `bytes` as float32: a view when they are float32 already, else a converted copy. */
export function toFloat32(dtype: DType, bytes: Uint8Array): Float32Array {
  const source = aligned(dtype, bytes);
  switch (dtype) {
    case "float32":
      return view(Float32Array, source);
    case "float16":
      return lookUp(view(Uint16Array, source), decodeTable(SMALL_FLOATS.float16));
    case "bfloat16":
      return widenBfloat16(view(Uint16Array, source));
    case "float8_e4m3fn":
    case "float8_e5m2":
      return lookUp(source, decodeTable(SMALL_FLOATS[dtype]));
    case "int64":
      return Float32Array.from(view(BigInt64Array, source), roundBigInt);
    case "uint64":
      return Float32Array.from(view(BigUint64Array, source), roundBigInt);
    case "bool":
      return Float32Array.from(source, (byte) => byte === 0 ? 0 : 1);
    default:
      return new Float32Array(numbers(dtype, source));
  }
}

/**
 * `values` rounded to `dtype`, as little-endian bytes: a view when it is float32. Integers are
 * truncated toward zero; what does not fit them wraps (PyTorch leaves that undefined), NaN is 0.
 */
export function fromFloat32(dtype: DType, values: Float32Array): Uint8Array {
  switch (dtype) {
    case "float32":
      return bytesOf(values);
    case "float16":
      return bytesOf(narrowFloat16(values));
    case "bfloat16":
      return bytesOf(narrowBfloat16(values));
    case "float8_e4m3fn":
    case "float8_e5m2":
      return narrowFloat8(values, encodeTable(SMALL_FLOATS[dtype]));
    case "int64":
      return bytesOf(BigInt64Array.from(values, truncateToBigInt));
    case "uint64":
      return bytesOf(BigUint64Array.from(values, truncateToBigInt));
    case "bool":
      return Uint8Array.from(values, (value) => value === 0 ? 0 : 1);
    default:
      return narrowNumbers(dtype, values);
  }
}

type NumberType = Exclude<DType, "float16" | "bfloat16" | "int64" | "uint64" | "bool" | Float8>;
type Float8 = "float8_e4m3fn" | "float8_e5m2";
type NumberArray =
  | Float64Array
  | Float32Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint32Array
  | Uint16Array
  | Uint8Array;

/** The constructors of the types that JavaScript has arrays of numbers for. */
const NUMBER_ARRAYS = {
  float64: Float64Array,
  float32: Float32Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint32: Uint32Array,
  uint16: Uint16Array,
  uint8: Uint8Array,
} as const;

function numbers(dtype: NumberType, bytes: Uint8Array): NumberArray {
  return view<NumberArray>(NUMBER_ARRAYS[dtype], bytes);
}

function narrowNumbers(dtype: NumberType, values: Float32Array): Uint8Array {
  const ArrayType = NUMBER_ARRAYS[dtype];
  return bytesOf(new ArrayType(values));
}

function aligned(dtype: DType, bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % itemSize(dtype) === 0 ? bytes : bytes.slice();
}

interface ViewConstructor<View> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): View;
}

function view<View>(ViewType: ViewConstructor<View>, bytes: Uint8Array): View {
  const length = bytes.byteLength / ViewType.BYTES_PER_ELEMENT;
  return new ViewType(bytes.buffer, bytes.byteOffset, length);
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

// Values move as bit patterns, not as floats, so that NaN payloads survive on every engine.
function lookUp(codes: Uint8Array | Uint16Array, table: Uint32Array): Float32Array {
  const bits = new Uint32Array(codes.length);
  for (let i = 0; i < codes.length; i++) bits[i] = table[codes[i]];
  return new Float32Array(bits.buffer);
}

function widenBfloat16(codes: Uint16Array): Float32Array {
  const bits = new Int32Array(codes.length);
  for (let i = 0; i < codes.length; i++) bits[i] = codes[i] << 16;
  return new Float32Array(bits.buffer);
}

function narrowBfloat16(values: Float32Array): Uint16Array {
  const bits = view(Uint32Array, bytesOf(values));
  const codes = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i];
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    // Adding 0x7fff and the lowest kept bit carries exactly when the dropped half rounds up.
    codes[i] = isNaN ? 0x7fc0 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return codes;
}

function narrowFloat16(values: Float32Array): Uint16Array {
  const bits = view(Uint32Array, bytesOf(values));
  const codes = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i];
    codes[i] = ((word >>> 16) & 0x8000) | float16Magnitude(word & 0x7fffffff, values[i]);
  }
  return codes;
}

const INFINITY_BITS = 0x7f800000;
const FLOAT16_OVERFLOW_BITS = 0x47800000; // 65536
const FLOAT16_NORMAL_BITS = 0x38800000; // 2^-14
/** Adding and subtracting 2^52 rounds a small double to an integer, ties to even. */
const ROUND_TO_INTEGER = 2 ** 52;

function float16Magnitude(bits: number, value: number): number {
  if (bits > INFINITY_BITS) return 0x7e00 | ((bits >>> 13) & 0x3ff);
  if (bits >= FLOAT16_OVERFLOW_BITS) return 0x7c00;
  if (bits < FLOAT16_NORMAL_BITS) {
    return (Math.abs(value) * 2 ** 24 + ROUND_TO_INTEGER) - ROUND_TO_INTEGER;
  }
  // Rebias the exponent from 127 to 15 and round the 13 dropped bits to nearest even.
  return (bits - (112 << 23) + 0xfff + ((bits >>> 13) & 1)) >>> 13;
}

function narrowFloat8(values: Float32Array, table: Uint8Array): Uint8Array {
  const bits = view(Uint32Array, bytesOf(values));
  const codes = new Uint8Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i];
    // The upper half decides, except for whether anything at all lies below it.
    codes[i] = table[(word >>> 16) * 2 + ((word & 0xffff) === 0 ? 0 : 1)];
  }
  return codes;
}

/** The float32 nearest to an integer: no detour over a rounded double. */
function roundBigInt(value: bigint): number {
  const fitsDouble = value >= -(2n ** 53n) && value <= 2n ** 53n;
  if (fitsDouble) return Number(value);
  // Drop 12 bits that only matter as "more than a tie"; what is left is exact in a double.
  const sticky = (value & 0xfffn) === 0n ? 0n : 0x1000n;
  return Number(((value >> 12n) << 12n) | sticky);
}

function truncateToBigInt(value: number): bigint {
  return Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0n;
}
