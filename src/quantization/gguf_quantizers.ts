/**
 * Quantizing to GGUF blocks, byte for byte as ggml's reference code does without an importance matrix
 * (what ggml_quantize_chunk gives). Scales are stored as float16; the simple types divide by the
 * unrounded ones, the K types code every value again with what was stored. After ggml-quants.c.
 */

import { GGUF_BLOCKS } from "./gguf_blocks.ts";
import { writeFloat16 } from "./gguf_float16.ts";
import { quantizeMxfp4, quantizeNvfp4 } from "./gguf_fp4.ts";
import {
  foundMinimum,
  type Group,
  groupWeights,
  largestValue,
  nearestInteger,
  nearestIq4,
  searchIq4Scale,
  searchScaleAndMinimum,
  searchSymmetricScale,
  searchThreeBitScale,
} from "./gguf_searches.ts";
import { type GgufBlockType, ggufTypeInfo } from "./gguf_types.ts";

const fround = Math.fround;

/** Types that can be quantized to: all of them. */
export type GgufQuantType = GgufBlockType;

/** Quantizes one block: values of `x` from `at`, bytes of `out` from `to` (which are zero). */
type BlockQuantizer = (x: Float32Array, at: number, out: Uint8Array, to: number) => void;

const codes = new Uint8Array(256);
const scales = new Float32Array(16);
const minima = new Float32Array(16);
const scaleCodes = new Uint8Array(16);
const minimumCodes = new Uint8Array(16);
const group: Group = { x: scales, at: 0, codes, codesAt: 0 };

/** The group of `x` from `at`, with its codes from `codesAt`; one object, used again. */
function groupAt(x: Float32Array, at: number, codesAt: number): Group {
  group.x = x;
  group.at = at;
  group.codesAt = codesAt;
  return group;
}

const QUANTIZERS: Readonly<Record<GgufQuantType, BlockQuantizer>> = {
  Q4_0: (x, at, out, to) => quantizeSymmetric("Q4_0", 8, x, at, out, to),
  Q5_0: (x, at, out, to) => quantizeSymmetric("Q5_0", 16, x, at, out, to),
  Q4_1: (x, at, out, to) => quantizeRange("Q4_1", 15, x, at, out, to),
  Q5_1: (x, at, out, to) => quantizeRange("Q5_1", 31, x, at, out, to),
  Q8_0: quantizeEightBits,
  Q2_K: quantizeQ2K,
  Q3_K: quantizeQ3K,
  Q4_K: (x, at, out, to) => quantizeWithMinima("Q4_K", 15, -1, 20, x, at, out, to),
  Q5_K: (x, at, out, to) => quantizeWithMinima("Q5_K", 31, -0.5, 15, x, at, out, to),
  Q6_K: quantizeQ6K,
  IQ4_NL: quantizeIq4Nl,
  IQ4_XS: quantizeIq4Xs,
  MXFP4: quantizeMxfp4,
  NVFP4: quantizeNvfp4,
};

/** Whether a type can be quantized to. */
export function isGgufQuantType(type: string): type is GgufQuantType {
  return Object.hasOwn(QUANTIZERS, type);
}

/** Quantizes whole blocks of finite values into `out` from byte `to`, which must be zero. */
export function quantizeBlocks(
  type: GgufQuantType,
  values: Float32Array,
  out: Uint8Array,
  to = 0,
): void {
  const { elements, bytes } = ggufTypeInfo(type);
  const quantize = QUANTIZERS[type];
  for (let at = 0; at < values.length; at += elements, to += bytes) quantize(values, at, out, to);
}

/** Q4_0, Q5_0: the value of largest magnitude becomes code 0. */
function quantizeSymmetric(
  type: GgufQuantType,
  zeroPoint: number,
  x: Float32Array,
  at: number,
  out: Uint8Array,
  to: number,
): void {
  const scale = fround(largestValue(x, at, 32) / -zeroPoint);
  const inverse = scale ? fround(1 / scale) : 0;
  const most = 2 * zeroPoint - 1;
  for (let i = 0; i < 32; i++) {
    const code = fround(fround(x[at + i] * inverse) + (zeroPoint + 0.5)) | 0;
    codes[i] = code > most ? most : code;
  }
  writeFloat16(out, to, scale);
  GGUF_BLOCKS[type].planes.write(out, to, codes);
}

/** Q4_1, Q5_1: codes from the minimum to the maximum. */
function quantizeRange(
  type: GgufQuantType,
  most: number,
  x: Float32Array,
  at: number,
  out: Uint8Array,
  to: number,
): void {
  let min = x[at], max = x[at];
  for (let i = 1; i < 32; i++) {
    if (x[at + i] < min) min = x[at + i];
    if (x[at + i] > max) max = x[at + i];
  }
  const scale = fround(fround(max - min) / most);
  const inverse = scale ? fround(1 / scale) : 0;
  for (let i = 0; i < 32; i++) {
    const code = fround(fround(fround(x[at + i] - min) * inverse) + 0.5) | 0;
    codes[i] = code > most ? most : code;
  }
  writeFloat16(out, to, scale);
  writeFloat16(out, to + 2, min);
  GGUF_BLOCKS[type].planes.write(out, to, codes);
}

/** Q8_0: rounds halves away from zero. */
function quantizeEightBits(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  const scale = fround(Math.abs(largestValue(x, at, 32)) / 127);
  const inverse = scale ? fround(1 / scale) : 0;
  writeFloat16(out, to, scale);
  for (let i = 0; i < 32; i++) {
    const value = fround(x[at + i] * inverse);
    out[to + 2 + i] = value < 0 ? -(0.5 - value | 0) : value + 0.5 | 0;
  }
}

/** Q4_K, Q5_K: eight groups of 32 with scales and minima of 6 bits. */
function quantizeWithMinima(
  type: "Q4_K" | "Q5_K",
  most: number,
  firstStep: number,
  steps: number,
  x: Float32Array,
  at: number,
  out: Uint8Array,
  to: number,
): void {
  let maxScale = 0, maxMinimum = 0;
  for (let j = 0; j < 8; j++) {
    setWeights(x, at + 32 * j);
    const found = groupAt(x, at + 32 * j, 32 * j);
    scales[j] = searchScaleAndMinimum(found, 32, most, firstStep, steps, false);
    minima[j] = foundMinimum();
    if (scales[j] > maxScale) maxScale = scales[j];
    if (minima[j] > maxMinimum) maxMinimum = minima[j];
  }
  const inverseScale = maxScale > 0 ? fround(63 / maxScale) : 0;
  const inverseMinimum = maxMinimum > 0 ? fround(63 / maxMinimum) : 0;
  for (let j = 0; j < 8; j++) {
    scaleCodes[j] = Math.min(63, nearestInteger(fround(inverseScale * scales[j])) & 255);
    minimumCodes[j] = Math.min(63, nearestInteger(fround(inverseMinimum * minima[j])) & 255);
  }
  const scale = writeFloat16(out, to, fround(maxScale / 63));
  const minimum = writeFloat16(out, to + 2, fround(maxMinimum / 63));
  for (let j = 0; j < 8; j++) {
    const groupScale = fround(scale * scaleCodes[j]);
    const groupMinimum = fround(minimum * minimumCodes[j]);
    if (groupScale) recode(x, at + 32 * j, 32, 32 * j, groupScale, groupMinimum, most);
  }
  writeCodes(type, out, to);
}

/** Each value's weight: the root of the group's mean square, and its magnitude. */
function setWeights(x: Float32Array, at: number): void {
  let sum = 0;
  for (let i = at; i < at + 32; i++) sum = fround(sum + fround(x[i] * x[i]));
  const mean = fround(Math.sqrt(fround(sum / 32)));
  for (let i = 0; i < 32; i++) groupWeights[i] = fround(mean + Math.abs(x[at + i]));
}

/** Codes a group again, with the scale and the minimum that are stored. */
function recode(
  x: Float32Array,
  at: number,
  count: number,
  codesAt: number,
  scale: number,
  minimum: number,
  most: number,
): void {
  for (let i = 0; i < count; i++) {
    const code = nearestInteger(fround(fround(x[at + i] + minimum) / scale));
    codes[codesAt + i] = code < 0 ? 0 : code > most ? most : code;
  }
}

/** Codes a group again around a zero point. */
function recodeSymmetric(
  x: Float32Array,
  at: number,
  codesAt: number,
  scale: number,
  zeroPoint: number,
): void {
  for (let i = 0; i < 16; i++) {
    const code = nearestInteger(fround(x[at + i] / scale)) + zeroPoint;
    codes[codesAt + i] = code < 0 ? 0 : code >= 2 * zeroPoint ? 2 * zeroPoint - 1 : code;
  }
}

/** The codes of a block, and of its scales and minima where it has such. */
function writeCodes(type: GgufQuantType, out: Uint8Array, to: number): void {
  const { planes, scale, offset } = GGUF_BLOCKS[type];
  planes.write(out, to, codes);
  if (scale.kind === "coded") scale.planes.write(out, to, scaleCodes);
  if (offset?.kind === "coded") offset.planes.write(out, to, minimumCodes);
}

function quantizeQ2K(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  let maxScale = 0, maxMinimum = 0;
  for (let j = 0; j < 16; j++) {
    for (let i = 0; i < 16; i++) groupWeights[i] = Math.abs(x[at + 16 * j + i]);
    scales[j] = searchScaleAndMinimum(groupAt(x, at + 16 * j, 16 * j), 16, 3, -0.5, 15, true);
    minima[j] = foundMinimum();
    if (scales[j] > maxScale) maxScale = scales[j];
    if (minima[j] > maxMinimum) maxMinimum = minima[j];
  }
  const inverseScale = maxScale > 0 ? fround(15 / maxScale) : 0;
  const inverseMinimum = maxMinimum > 0 ? fround(15 / maxMinimum) : 0;
  for (let j = 0; j < 16; j++) {
    const scaleCode = maxScale > 0 ? nearestInteger(fround(inverseScale * scales[j])) : 0;
    const code = maxMinimum > 0 ? nearestInteger(fround(inverseMinimum * minima[j])) : 0;
    // As in C, where both share a byte and a scale below 0 spills over.
    const byte = (scaleCode & 255) | (code << 4 & 255);
    scaleCodes[j] = byte & 15;
    minimumCodes[j] = byte >> 4;
  }
  const scale = writeFloat16(out, to + 80, fround(maxScale / 15));
  const minimum = writeFloat16(out, to + 82, fround(maxMinimum / 15));
  for (let j = 0; j < 16; j++) {
    const groupScale = fround(scale * scaleCodes[j]);
    const groupMinimum = fround(minimum * minimumCodes[j]);
    if (groupScale) recode(x, at + 16 * j, 16, 16 * j, groupScale, groupMinimum, 3);
  }
  writeCodes("Q2_K", out, to);
}

function quantizeQ3K(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  for (let j = 0; j < 16; j++) scales[j] = searchThreeBitScale(groupAt(x, at + 16 * j, 16 * j));
  const maxScale = largestValue(scales, 0, 16);
  if (maxScale === 0) {
    scaleCodes.fill(0);
    writeFloat16(out, to + 108, 0);
    return writeCodes("Q3_K", out, to);
  }
  const inverse = fround(-32 / maxScale);
  for (let j = 0; j < 16; j++) {
    const code = nearestInteger(fround(inverse * scales[j])) << 24 >> 24;
    scaleCodes[j] = (code < -32 ? -32 : code > 31 ? 31 : code) + 32;
  }
  const scale = writeFloat16(out, to + 108, fround(1 / inverse));
  for (let j = 0; j < 16; j++) {
    const groupScale = fround(scale * (scaleCodes[j] - 32));
    if (groupScale) recodeSymmetric(x, at + 16 * j, 16 * j, groupScale, 4);
  }
  writeCodes("Q3_K", out, to);
}

function quantizeQ6K(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  for (let j = 0; j < 16; j++) scales[j] = searchSymmetricScale(groupAt(x, at + 16 * j, 16 * j));
  const maxScale = largestValue(scales, 0, 16);
  if (Math.abs(maxScale) < fround(1e-15)) return; // all bytes are zero
  const inverse = fround(-128 / maxScale);
  for (let j = 0; j < 16; j++) {
    scaleCodes[j] = Math.min(127, nearestInteger(fround(inverse * scales[j]))) + 128;
  }
  const scale = writeFloat16(out, to + 208, fround(1 / inverse));
  for (let j = 0; j < 16; j++) {
    const groupScale = fround(scale * (scaleCodes[j] - 128));
    if (groupScale) recodeSymmetric(x, at + 16 * j, 16 * j, groupScale, 32);
  }
  writeCodes("Q6_K", out, to);
}

function quantizeIq4Nl(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  const scale = searchIq4Scale(x, at);
  const inverse = scale ? fround(1 / scale) : 0;
  writeFloat16(out, to, scale);
  for (let i = 0; i < 32; i++) codes[i] = nearestIq4(fround(inverse * x[at + i]));
  writeCodes("IQ4_NL", out, to);
}

function quantizeIq4Xs(x: Float32Array, at: number, out: Uint8Array, to: number): void {
  for (let j = 0; j < 8; j++) scales[j] = searchIq4Scale(x, at + 32 * j);
  const maxScale = largestValue(scales, 0, 8);
  const scale = fround(-maxScale / 32);
  writeFloat16(out, to, scale);
  const inverse = scale ? fround(1 / scale) : 0;
  for (let j = 0; j < 8; j++) {
    const code = nearestInteger(fround(inverse * scales[j]));
    const level = code < -32 ? -32 : code > 31 ? 31 : code;
    const groupScale = fround(scale * level);
    const groupInverse = groupScale ? fround(1 / groupScale) : 0;
    for (let i = 0; i < 32; i++) {
      codes[32 * j + i] = nearestIq4(fround(groupInverse * x[at + 32 * j + i]));
    }
    scaleCodes[j] = level + 32;
  }
  writeCodes("IQ4_XS", out, to);
}
