/** Single float16 numbers, for the scales of blocks: to bits and back, rounded to nearest even. */

import { decodeTable, SMALL_FLOATS } from "../tensor/small_float.ts";

const float = new Float32Array(1);
const word = new Int32Array(float.buffer);

/** Float32 values of all 65,536 float16 codes. */
const VALUES = new Float32Array(decodeTable(SMALL_FLOATS.float16).buffer);

/** 2^52: adding and subtracting it rounds a small double to an integer, ties to even. */
const ROUND_TO_INTEGER = 2 ** 52;

/** The float16 nearest to a finite float32, as bits; beyond 65519 infinity. */
export function float16Bits(value: number): number {
  float[0] = value;
  const sign = word[0] >>> 16 & 0x8000;
  const magnitude = word[0] & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00; // 65536
  if (magnitude < 0x38800000) { // 2^-14
    return sign | (Math.abs(value) * 2 ** 24 + ROUND_TO_INTEGER) - ROUND_TO_INTEGER;
  }
  return sign | (magnitude - (112 << 23) + 0xfff + (magnitude >>> 13 & 1)) >>> 13;
}

/** The value of a float16's bits. */
export function float16Value(bits: number): number {
  return VALUES[bits];
}

/** The value of the float16 at a byte offset. */
export function readFloat16(bytes: Uint8Array, at: number): number {
  return VALUES[bytes[at] | bytes[at + 1] << 8];
}

/** Writes a number as float16 and gives what was written. */
export function writeFloat16(bytes: Uint8Array, at: number, value: number): number {
  const bits = float16Bits(value);
  bytes[at] = bits & 255;
  bytes[at + 1] = bits >> 8;
  return VALUES[bits];
}
