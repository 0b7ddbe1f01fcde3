/**
 * The float32 power of PyTorch's vectorised CPU kernels, bit for bit: `powf` of SLEEF (within one unit in
 * the last place) with fused multiply-adds, as exp(y log x) over pairs of floats.
 */

import { fusedMultiplyAdd as fma } from "./float32_math.ts";

const f32 = Math.fround;

/** The sum of two floats, the second much smaller. */
type Pair = readonly [number, number];

const bits = new Uint32Array(1);
const value = new Float32Array(bits.buffer);

/** `base` to the `exponent`, for a base of at least 0 and a finite exponent below 0. */
export function powFloat32(base: number, exponent: number): number {
  if (base === 0) return Infinity;
  if (base === 1) return 1;
  if (base === Infinity) return 0;
  return expOfPair(timesFloat(logToPair(base), f32(exponent)));
}

const LOG_ROW = [0.240320354700088500976562, 0.285112679004669189453125, 0.400007992982864379882812]
  .map(f32);
const TWO_THIRDS: Pair = [f32(0.66666662693023681640625), f32(3.69183861259614332084311e-9)];
const LN2: Pair = [f32(0.69314718246459960938), f32(-1.904654323148236017e-9)];

/** log x by the series of 2 artanh((m - 1) / (m + 1)), where x = m 2^e. */
function logToPair(x: number): Pair {
  const isSmall = x < 2 ** -126;
  const scaled = isSmall ? f32(x * 2 ** 64) : x;
  value[0] = scaled * f32(1 / 0.75);
  const exponent = (bits[0] >>> 23) - 127;
  const mantissa = f32(scaled * 2 ** -exponent);
  const root = divide(sum(-1, mantissa), sum(1, mantissa));
  const squared = square(root);
  let row = fma(LOG_ROW[0], squared[0], LOG_ROW[1]);
  row = fma(row, squared[0], LOG_ROW[2]);
  const whole = timesFloat(LN2, isSmall ? exponent - 64 : exponent);
  const first = addSmaller(whole, [f32(root[0] * 2), f32(root[1] * 2)]);
  return addSmaller(first, times(times(squared, root), add(timesFloat(squared, row), TWO_THIRDS)));
}

const LN2_HIGH = f32(0.693145751953125);
const LN2_LOW = f32(1.428606765330187045e-6);
const ONE_OVER_LN2 = f32(Math.LOG2E);
const EXP_ROW = [
  0.00136324646882712841033936,
  0.00836596917361021041870117,
  0.0416710823774337768554688,
  0.166665524244308471679688,
  0.499999850988388061523438,
].map(f32);

function expOfPair(x: Pair): number {
  if (x[0] < -104) return 0;
  const turns = roundHalfEven(f32(f32(x[0] + x[1]) * ONE_OVER_LN2));
  const reduced = normalized(
    addFloat(addFloat(x, f32(turns * -LN2_HIGH)), f32(turns * -LN2_LOW)),
  );
  let row = EXP_ROW[0];
  for (const coefficient of EXP_ROW.slice(1)) row = fma(row, reduced[0], coefficient);
  const rest = addSmaller(reduced, timesFloat(square(reduced), row));
  const high = f32(1 + rest[0]);
  const low = f32(f32(f32(1 - high) + rest[0]) + rest[1]);
  return scaleByPower(f32(high + low), turns);
}

/** In two steps, as the factor alone may overflow. */
function scaleByPower(x: number, exponent: number): number {
  const half = Math.trunc(exponent / 2);
  return f32(f32(x * 2 ** half) * 2 ** (exponent - half));
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

function sum(a: number, b: number): Pair {
  const total = f32(a + b);
  const part = f32(total - a);
  return [total, f32(f32(a - f32(total - part)) + f32(b - part))];
}

function add(a: Pair, b: Pair): Pair {
  const [total, lost] = sum(a[0], b[0]);
  return [total, f32(lost + f32(a[1] + b[1]))];
}

function addFloat(a: Pair, b: number): Pair {
  const [total, lost] = sum(a[0], b);
  return [total, f32(lost + a[1])];
}

/** As `add` for |a| > |b|. */
function addSmaller(a: Pair, b: Pair): Pair {
  const total = f32(a[0] + b[0]);
  return [total, f32(f32(f32(f32(a[0] - total) + b[0]) + a[1]) + b[1])];
}

function times(a: Pair, b: Pair): Pair {
  const product = f32(a[0] * b[0]);
  return [product, fma(a[0], b[1], fma(a[1], b[0], fma(a[0], b[0], -product)))];
}

function timesFloat(a: Pair, b: number): Pair {
  const product = f32(a[0] * b);
  return [product, fma(a[1], b, fma(a[0], b, -product))];
}

function square(a: Pair): Pair {
  const product = f32(a[0] * a[0]);
  return [product, fma(f32(a[0] + a[0]), a[1], fma(a[0], a[0], -product))];
}

function divide(a: Pair, b: Pair): Pair {
  const inverse = f32(1 / b[0]);
  const quotient = f32(a[0] * inverse);
  const lost = fma(inverse, a[0], -quotient);
  const error = fma(-b[1], inverse, fma(-b[0], inverse, 1));
  return [quotient, fma(quotient, error, fma(a[1], inverse, lost))];
}

function normalized(a: Pair): Pair {
  const total = f32(a[0] + a[1]);
  return [total, f32(f32(a[0] - total) + a[1])];
}
