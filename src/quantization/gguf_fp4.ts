/** Quantizing to ggml's blocks of 4-bit floats (e2m1), byte for byte as its reference code does. */

import { GGUF_BLOCKS, HALF_E4M3 } from "./gguf_blocks.ts";
import { largestValue } from "./gguf_searches.ts";

const fround = Math.fround;

/** Magnitudes of the codes 0 to 7, doubled; code 8 is their sign. */
const MAGNITUDES = [0, 1, 2, 3, 4, 6, 8, 12];

const codes = new Uint8Array(64);
const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/** MXFP4: the scale is the power of two that brings the largest of 32 values between 4 and 8. */
export function quantizeMxfp4(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  const largest = Math.abs(largestValue(x, at, 32));
  // A float32 logarithm, as in C: just below a power of two it is rounded up to it. And a value below
  // 2^-125 has an exponent below 0, of which C keeps the low bits; its codes are 0 then.
  const exponent = largest > 0 ? Math.floor(fround(Math.log2(largest))) + 125 & 255 : 0;
  out[to] = exponent;
  codeValues(x, at, 0, 32, 2 ** (exponent - 128));
  GGUF_BLOCKS.MXFP4.planes.write(out, to, codes);
}

/** NVFP4: an unsigned e4m3 scale per 16 values brings the largest to 6, if it reaches so far. */
export function quantizeNvfp4(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  for (let group = 0; group < 4; group++) {
    const first = 16 * group;
    const largest = Math.abs(largestValue(x, at + first, 16));
    const scale = unsignedE4m3(fround(largest / 6));
    out[to + group] = scale;
    codeValues(x, at + first, first, 16, HALF_E4M3[scale]);
  }
  GGUF_BLOCKS.NVFP4.planes.write(out, to, codes);
}

/** Codes, from `codesAt`, of the values of a group at the scale of doubled magnitudes. */
function codeValues(
  x: Float32Array,
  at: number,
  codesAt: number,
  count: number,
  scale: number,
): void {
  for (let i = 0; i < count; i++) {
    const value = x[at + i];
    const code = nearestMagnitude(Math.abs(value), scale);
    codes[codesAt + i] = value < 0 && code > 0 ? code + 8 : code;
  }
}

/** The code of the nearest magnitude; of two as near, by float32 differences, the smaller. */
function nearestMagnitude(magnitude: number, scale: number): number {
  let nearest = 0, least = magnitude;
  for (let code = 1; code < 8; code++) {
    const error = Math.abs(fround(MAGNITUDES[code] * scale - magnitude));
    if (error < least) {
      least = error;
      nearest = code;
    }
  }
  return nearest;
}

/** The e4m3 code of a number that is not negative, halves rounded up; in ggml 448 from 248 on. */
function unsignedE4m3(value: number): number {
  float[0] = Math.min(value, 448);
  const exponent = (word[0] >>> 23) - 120; // e4m3's own, biased by 7
  if (exponent <= 0) return Math.min(7, Math.floor(fround(fround(value * 512) + 0.5)));
  // The upper three bits of the mantissa, rounded; an overflow goes on into the exponent.
  const code = (exponent << 3) + (((word[0] >>> 19 & 15) + 1) >> 1);
  return code < 0x78 ? code : 0x7e;
}
