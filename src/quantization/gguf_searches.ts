/**
 * The searches of ggml's reference quantizers for the scale of a group, in the float32 arithmetic of
 * the C code: every product, quotient and sum is rounded, in the same order. After ggml-quants.c
 * (make_qkx2_quants, make_qx_quants, make_q3_quants and the search of quantize_row_iq4_nl_impl).
 */

import { IQ4_VALUES } from "./gguf_blocks.ts";

const fround = Math.fround;

/** Adding it to a float32 rounds to an integer, ties to even: 1.5 * 2^23. */
const ROUNDER = 12582912;
const TENTH = fround(0.1);
/** Groups below it count as zero. */
const SMALLEST = fround(1e-15);

const float = new Float32Array(1);
const word = new Int32Array(float.buffer);

/** ggml's nearest_int: to nearest even, and what its bits happen to be beyond 2^22. */
export function nearestInteger(value: number): number {
  const sum = fround(value + ROUNDER);
  if (sum >= 8388608 && sum < 16777216) return sum - ROUNDER;
  if (Number.isNaN(sum)) return 0;
  float[0] = sum;
  return (word[0] & 0x007fffff) - 0x00400000;
}

/** What a search works on: a group of `count` values of `x` from `at`, and where its codes go. */
export interface Group {
  x: Float32Array;
  at: number;
  codes: Uint8Array;
  codesAt: number;
}

// Scratch of the searches: float32 values kept in doubles, which spares the conversions.
const weights = new Float64Array(32);
const values = new Float64Array(32);
const shifted = new Float64Array(32);
const trial = new Float64Array(32);
const chosen = new Float64Array(32);

/** The weights of the next `searchScaleAndMinimum`, one per value of the group; float32 values. */
export const groupWeights: Float64Array = weights;

/** The minimum that the last `searchScaleAndMinimum` found, sign changed. */
let minimum = 0;

/** See `searchScaleAndMinimum`. */
export function foundMinimum(): number {
  return minimum;
}

/**
 * Scale and minimum (at most 0) such that `code * scale + minimum` with codes 0 to `most` come nearest
 * to the values: tries around the range's own scale, each solved by weighted least squares.
 */
export function searchScaleAndMinimum(
  { x, at, codes, codesAt }: Group,
  count: number,
  most: number,
  firstStep: number,
  steps: number,
  absolute: boolean,
): number {
  let min = x[at], max = x[at];
  let sumW = 0, sumX = 0;
  for (let i = 0; i < count; i++) {
    const value = x[at + i];
    values[i] = value;
    if (value < min) min = value;
    if (value > max) max = value;
    sumW = fround(sumW + weights[i]);
    sumX = fround(sumX + fround(weights[i] * value));
  }
  if (min > 0) min = 0;
  if (max === min) {
    codes.fill(0, codesAt, codesAt + count);
    minimum = -min;
    return 0;
  }
  shift(count, min);
  const iscale = fround(most / fround(max - min));
  let scale = fround(1 / iscale);
  code(chosen, count, most, usable(iscale));
  let best = groupError(chosen, count, scale, min, absolute);
  for (let step = 0; step <= steps; step++) {
    const factor = fround(fround(firstStep + fround(TENTH * step)) + most);
    code(trial, count, most, usable(fround(factor / fround(max - min))));
    let sumL = 0, sumL2 = 0, sumXl = 0;
    for (let i = 0; i < count; i++) {
      const l = trial[i];
      const wl = fround(weights[i] * l);
      sumL = fround(sumL + wl);
      sumL2 = fround(sumL2 + fround(wl * l));
      sumXl = fround(sumXl + fround(wl * values[i]));
    }
    const determinant = fround(fround(sumW * sumL2) - fround(sumL * sumL));
    if (!(determinant > 0)) continue;
    let thisScale = fround(
      fround(fround(sumW * sumXl) - fround(sumX * sumL)) / determinant,
    );
    let thisMin = fround(fround(fround(sumL2 * sumX) - fround(sumL * sumXl)) / determinant);
    if (thisMin > 0) {
      thisMin = 0;
      thisScale = fround(sumXl / sumL2);
    }
    const error = groupError(trial, count, thisScale, thisMin, absolute);
    if (!(error < best)) continue;
    for (let i = 0; i < count; i++) chosen[i] = trial[i];
    best = error;
    scale = thisScale;
    min = thisMin;
    shift(count, min);
  }
  for (let i = 0; i < count; i++) codes[codesAt + i] = chosen[i];
  minimum = -min;
  return scale;
}

/** Values above the minimum. */
function shift(count: number, min: number): void {
  for (let i = 0; i < count; i++) shifted[i] = fround(values[i] - min);
}

/** In C an infinite product rounds to a negative integer and is clamped to code 0. */
function usable(iscale: number): number {
  return iscale === Infinity ? 0 : iscale;
}

/** The codes of the shifted values at a scale's inverse. */
function code(codes: Float64Array, count: number, most: number, iscale: number): void {
  for (let i = 0; i < count; i++) {
    const l = fround(fround(iscale * shifted[i]) + ROUNDER) - ROUNDER;
    codes[i] = l < 0 ? 0 : l > most ? most : l;
  }
}

function groupError(
  codes: Float64Array,
  count: number,
  scale: number,
  min: number,
  absolute: boolean,
): number {
  let error = 0;
  if (absolute) {
    for (let i = 0; i < count; i++) {
      const difference = fround(fround(fround(scale * codes[i]) + min) - values[i]);
      error = fround(error + fround(weights[i] * Math.abs(difference)));
    }
    return error;
  }
  for (let i = 0; i < count; i++) {
    const difference = fround(fround(fround(scale * codes[i]) + min) - values[i]);
    error = fround(error + fround(weights[i] * fround(difference * difference)));
  }
  return error;
}

/** The value of largest magnitude, with its sign; the first of equals. */
export function largestValue(x: Float32Array, at: number, count: number): number {
  let largest = 0, magnitude = 0;
  for (let i = at; i < at + count; i++) {
    const absolute = Math.abs(x[i]);
    if (absolute > magnitude) {
      magnitude = absolute;
      largest = x[i];
    }
  }
  return largest;
}

/** Scale of a group of 16 with codes -32 to 31 (stored plus 32), weighted by the squares: Q6_K. */
export function searchSymmetricScale({ x, at, codes, codesAt }: Group): number {
  const max = largestValue(x, at, 16);
  if (Math.abs(max) < SMALLEST) {
    codes.fill(0, codesAt, codesAt + 16);
    return 0;
  }
  for (let i = 0; i < 16; i++) {
    const value = x[at + i];
    values[i] = value;
    weights[i] = fround(value * value);
    shifted[i] = fround(weights[i] * value); // weight times value
  }
  let iscale = fround(-32 / max);
  setSymmetricCodes(codes, codesAt, iscale);
  symmetricSums(iscale);
  let scale = sumL2 ? fround(sumLx / sumL2) : 0;
  let best = fround(scale * sumLx);
  for (let step = -9; step <= 9; step++) {
    if (step === 0) continue;
    iscale = fround(-fround(32 + fround(TENTH * step)) / max);
    symmetricSums(iscale);
    if (!(sumL2 > 0 && fround(sumLx * sumLx) > fround(best * sumL2))) continue;
    setSymmetricCodes(codes, codesAt, iscale);
    scale = fround(sumLx / sumL2);
    best = fround(scale * sumLx);
  }
  return scale;
}

let sumLx = 0;
let sumL2 = 0;

function symmetricSums(iscale: number): void {
  let lx = 0, l2 = 0;
  for (let i = 0; i < 16; i++) {
    let l = fround(fround(iscale * values[i]) + ROUNDER) - ROUNDER;
    l = l < -32 ? -32 : l > 31 ? 31 : l;
    lx = fround(lx + fround(shifted[i] * l));
    l2 = fround(l2 + fround(fround(weights[i] * l) * l));
  }
  sumLx = lx;
  sumL2 = l2;
}

function setSymmetricCodes(codes: Uint8Array, codesAt: number, iscale: number): void {
  for (let i = 0; i < 16; i++) {
    const l = fround(fround(iscale * values[i]) + ROUNDER) - ROUNDER;
    codes[codesAt + i] = (l < -32 ? -32 : l > 31 ? 31 : l) + 32;
  }
}

const levels = new Int8Array(16);

/** Scale of a group of 16 with codes -4 to 3 (stored plus 4) by coordinate descent: Q3_K. */
export function searchThreeBitScale({ x, at, codes, codesAt }: Group): number {
  const max = largestValue(x, at, 16);
  if (Math.abs(max) < SMALLEST) {
    codes.fill(0, codesAt, codesAt + 16);
    return 0;
  }
  const iscale = fround(-4 / max);
  let lx = 0, l2 = 0;
  for (let i = 0; i < 16; i++) {
    const value = x[at + i];
    const l = clampThreeBits(nearestInteger(fround(iscale * value)));
    levels[i] = l;
    values[i] = value;
    weights[i] = fround(value * value);
    shifted[i] = fround(weights[i] * value); // weight times value
    lx = fround(lx + fround(shifted[i] * l));
    l2 = fround(l2 + fround(fround(weights[i] * l) * l));
  }
  for (let pass = 0; pass < 5; pass++) {
    let changed = false;
    for (let i = 0; i < 16; i++) {
      const w = weights[i], wx = shifted[i], old = levels[i];
      let restLx = fround(lx - fround(wx * old));
      if (!(restLx > 0)) continue;
      let restL2 = fround(l2 - fround(fround(w * old) * old));
      const l = clampThreeBits(nearestInteger(fround(fround(x[at + i] * restL2) / restLx)));
      if (l === old) continue;
      restLx = fround(restLx + fround(wx * l));
      restL2 = fround(restL2 + fround(fround(w * l) * l));
      const gain = fround(fround(restLx * restLx) * l2);
      if (restL2 > 0 && gain > fround(fround(lx * lx) * restL2)) {
        levels[i] = l;
        lx = restLx;
        l2 = restL2;
        changed = true;
      }
    }
    if (!changed) break;
  }
  for (let i = 0; i < 16; i++) codes[codesAt + i] = levels[i] + 4;
  return l2 > 0 ? fround(lx / l2) : 0;
}

function clampThreeBits(level: number): number {
  return level < -4 ? -4 : level > 3 ? 3 : level;
}

/** Half way between neighbours of `IQ4_VALUES`; a value on one belongs to the upper neighbour. */
const MIDDLES = Float32Array.from(
  { length: 16 },
  (_, i) => i < 15 ? (IQ4_VALUES[i] + IQ4_VALUES[i + 1]) / 2 : Infinity,
);

/** Per integer from -128 to 127 how many middles are not above it; they lie further than 1 apart. */
const RANKS = Uint8Array.from(
  { length: 256 },
  (_, i) => MIDDLES.filter((middle) => middle <= i - 128).length,
);

/** The index of the entry of `IQ4_VALUES` nearest to a value. */
export function nearestIq4(value: number): number {
  if (!(value > -127)) return 0;
  if (value >= 113) return 15;
  const rank = RANKS[Math.floor(value) + 128];
  return value >= MIDDLES[rank] ? rank + 1 : rank;
}

/** Scale of a group of 32 for `IQ4_VALUES`, weighted by the squares: IQ4_NL, IQ4_XS. */
export function searchIq4Scale(x: Float32Array, at: number): number {
  const max = largestValue(x, at, 32);
  if (Math.abs(max) < SMALLEST) return 0;
  for (let i = 0; i < 32; i++) {
    values[i] = x[at + i];
    weights[i] = fround(x[at + i] * x[at + i]);
  }
  iq4Sums(fround(1 / fround(-max / -127)));
  let scale = sumL2 > 0 ? fround(sumLx / sumL2) : 0;
  let best = fround(scale * sumLx);
  for (let step = -7; step <= 7; step++) {
    iq4Sums(fround((step - 127) / max));
    if (!(sumL2 > 0 && fround(sumLx * sumLx) > fround(best * sumL2))) continue;
    scale = fround(sumLx / sumL2);
    best = fround(scale * sumLx);
  }
  return scale;
}

function iq4Sums(iscale: number): void {
  let lx = 0, l2 = 0;
  for (let i = 0; i < 32; i++) {
    const value = values[i];
    const q = IQ4_VALUES[nearestIq4(fround(iscale * value))];
    const wq = fround(weights[i] * q);
    lx = fround(lx + fround(wq * value));
    l2 = fround(l2 + fround(wq * q));
  }
  sumLx = lx;
  sumL2 = l2;
}
