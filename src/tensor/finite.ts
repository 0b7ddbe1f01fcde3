/** Where a tensor holds NaN or infinity. */

import { type DType, itemSize } from "./dtype.ts";
import { HostTensor } from "./host_tensor.ts";

/** The bits of one element that are all set in NaN and infinity. */
const SPECIAL_BITS: Partial<Record<DType, number>> = {
  float32: 0x7f800000,
  float16: 0x7c00,
  bfloat16: 0x7f80,
  float8_e5m2: 0x7c,
  float8_e4m3fn: 0x7f,
};

/** Bits of an element, repeated for every element of a 32-bit word. */
export interface ElementBits {
  readonly size: number;
  /** Those that are all set in NaN and infinity. */
  readonly special: number;
  /** The lowest of these: adding it carries into the sign's place just where all of them are set. */
  readonly lowest: number;
  readonly sign: number;
}

/** The bits of a type of 1, 2 or 4 bytes; null for integers, which are finite, and for float64. */
export function elementBits(dtype: DType): ElementBits | null {
  const bits = SPECIAL_BITS[dtype];
  if (bits === undefined) return null;
  const size = itemSize(dtype);
  return {
    size,
    special: repeat(bits, size),
    lowest: repeat(bits & -bits, size),
    sign: repeat(2 ** (8 * size - 1), size),
  };
}

/** The flat index of the first NaN or infinity, or -1. Integers have none. */
export function firstNonFinite(tensor: HostTensor): number {
  if (tensor.dtype === "float64") return firstIn(new Float64Array(tensor.bytes.slice().buffer));
  const bits = elementBits(tensor.dtype);
  if (bits === null) return -1;
  const first = firstSuspectWord(tensor.bytes, bits) * (4 / bits.size);
  const rest = tensor.bytes.subarray(first * bits.size);
  const index = firstIn(new HostTensor(tensor.dtype, [tensor.size - first], rest).toFloat32());
  return index < 0 ? -1 : first + index;
}

/** The first of the whole 32-bit words that holds a special element, else their number. */
function firstSuspectWord(bytes: Uint8Array, { special, lowest, sign }: ElementBits): number {
  const whole = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(whole.buffer, whole.byteOffset, whole.byteLength >> 2);
  let i = 0;
  for (; i + 4 <= words.length; i += 4) {
    const carries = ((words[i] & special) + lowest) | ((words[i + 1] & special) + lowest) |
      ((words[i + 2] & special) + lowest) | ((words[i + 3] & special) + lowest);
    if ((carries & sign) !== 0) break;
  }
  while (i < words.length && (((words[i] & special) + lowest) & sign) === 0) i++;
  return i;
}

/** The bits of one element for every element of a 32-bit word. */
function repeat(bits: number, size: number): number {
  let word = 0;
  for (let shift = 0; shift < 32; shift += 8 * size) word |= bits << shift;
  return word;
}

function firstIn(values: Float32Array | Float64Array): number {
  return values.findIndex((value) => !Number.isFinite(value));
}
