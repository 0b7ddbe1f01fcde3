/**
 * Numbers as the unevaluated sum of two doubles, about 106 bits (Dekker 1971; Shewchuk 1997).
 * Enough for results that must round to the nearest double nearly always.
 */

import { scaleByPowerOfTwo } from "./power_of_two.ts";

/** A value `high + low` with |low| at most half an ulp of high. */
export type Pair = readonly [high: number, low: number];

const LN2: Pair = [0.6931471805599453, 2.3190468138462996e-17];

/** The exact sum of two doubles. */
export function twoSum(a: number, b: number): Pair {
  const sum = a + b;
  const partOfB = sum - a;
  return [sum, (a - (sum - partOfB)) + (b - partOfB)];
}

/** The exact product of two doubles, for magnitudes below 2^996. */
export function twoProduct(a: number, b: number): Pair {
  const product = a * b;
  const [aHigh, aLow] = split(a);
  const [bHigh, bLow] = split(b);
  return [product, aLow * bLow - (((product - aHigh * bHigh) - aLow * bHigh) - aHigh * bLow)];
}

function split(a: number): Pair {
  const scaled = 134217729 * a; // 2^27 + 1
  const high = scaled - (scaled - a);
  return [high, a - high];
}

/** The sum of two pairs. */
export function add(a: Pair, b: Pair): Pair {
  const [sum, error] = twoSum(a[0], b[0]);
  const [lowSum, lowError] = twoSum(a[1], b[1]);
  const [high, low] = fastTwoSum(sum, error + lowSum);
  return fastTwoSum(high, low + lowError);
}

function fastTwoSum(a: number, b: number): Pair {
  const sum = a + b;
  return [sum, b - (sum - a)];
}

/** The product of two pairs. */
export function multiply(a: Pair, b: Pair): Pair {
  const [product, error] = twoProduct(a[0], b[0]);
  return fastTwoSum(product, error + (a[0] * b[1] + a[1] * b[0]));
}

/** The product of a pair and a double. */
export function scale(a: Pair, factor: number): Pair {
  const [product, error] = twoProduct(a[0], factor);
  return fastTwoSum(product, error + a[1] * factor);
}

/** The quotient of two pairs. */
export function divide(a: Pair, b: Pair): Pair {
  const first = a[0] / b[0];
  const rest = add(a, scale(b, -first));
  const second = rest[0] / b[0];
  const third = add(rest, scale(b, -second))[0] / b[0];
  const [high, low] = fastTwoSum(first, second);
  return fastTwoSum(high, low + third);
}

// 1/41, 1/39, ... 1/3, 1: the series of the inverse hyperbolic tangent, highest power first.
const ODD_RECIPROCALS = Array.from({ length: 21 }, (_, i) => divide([1, 0], [41 - 2 * i, 0]));

/** The natural logarithm of `fraction * 2^exponent` for a fraction in [sqrt(1/2), sqrt(2)]. */
export function log(fraction: number, exponent: number): Pair {
  const s = divide([fraction - 1, 0], twoSum(fraction, 1));
  const z = multiply(s, s); // at most 0.0295, so 21 terms leave 1e-34
  const series = ODD_RECIPROCALS.reduce((sum, term) => add(multiply(sum, z), term));
  return add(scale(LN2, exponent), scale(multiply(s, series), 2));
}

/** `e` to the power `x`, rounded to a double. */
export function exp(x: Pair): number {
  if (x[0] > 710) return Infinity;
  if (x[0] < -746) return 0;
  const k = Math.round(x[0] / LN2[0]);
  const r = add(x, scale(LN2, -k));
  let series: Pair = [1, 0];
  for (let n = 24; n >= 1; n--) series = add([1, 0], divide(multiply(series, r), [n, 0]));
  return scaleByPowerOfTwo(series[0], k);
}
