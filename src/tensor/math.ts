/**
 * Elementary functions with the same bits on every JavaScript engine.
 *
 * The standard leaves `Math.exp` and its kin to the engine, so two engines may draw two pictures from one seed.
 * These use only `+ - * /`, which IEEE 754 fixes: the argument reductions and minimax polynomials published
 * with Sun's fdlibm (under 1 ulp), and double-double series for `pow` (next to always correctly rounded).
 */

import * as pair from "./double_double.ts";
import { type ReducedAngle, reduceHugeAngle } from "./pi_reduction.ts";
import { biasedExponent, powerOfTwo, scaleByPowerOfTwo } from "./power_of_two.ts";

const LN2_HIGH = 6.93147180369123816490e-01; // 33 leading bits, so that k * LN2_HIGH is exact
const LN2_LOW = 1.90821492927058770002e-10;
const INVERSE_LN2 = 1.44269504088896338700;

// Minimax coefficients, lowest power first.
const EXP = [
  1.66666666666666019037e-01,
  -2.77777777770155933842e-03,
  6.61375632143793436117e-05,
  -1.65339022054652515390e-06,
  4.13813679705723846039e-08,
];
const LOG_ODD = [
  6.666666666666735130e-01,
  2.857142874366239149e-01,
  1.818357216161805012e-01,
  1.479819860511658591e-01,
];
const LOG_EVEN = [3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01];
const SIN_CUBE = -1.66666666666666324348e-01;
const SIN = [
  8.33333333332248946124e-03,
  -1.98412698298579493134e-04,
  2.75573137070700676789e-06,
  -2.50507602534068634195e-08,
  1.58969099521155010221e-10,
];
const COS = [
  4.16666666666666019037e-02,
  -1.38888888888741095749e-03,
  2.48015872894767294178e-05,
  -2.75573143513906633035e-07,
  2.08757232129817482790e-09,
  -1.13596475577881948265e-11,
];

function polynomial(x: number, coefficients: readonly number[]): number {
  let sum = coefficients[coefficients.length - 1];
  for (let i = coefficients.length - 2; i >= 0; i--) sum = sum * x + coefficients[i];
  return sum;
}

/** `e` to the power `x`; error under 1 ulp. */
export function exp(x: number): number {
  if (Number.isNaN(x)) return x;
  if (x > 709.782712893384) return Infinity;
  if (x < -745.1332191019412) return 0;
  const k = Math.abs(x) > LN2_HIGH / 2 ? Math.trunc(INVERSE_LN2 * x + (x < 0 ? -0.5 : 0.5)) : 0;
  const high = x - k * LN2_HIGH;
  const low = k * LN2_LOW;
  const r = high - low;
  const t = r * r;
  const c = r - t * polynomial(t, EXP); // so that e^r = 1 + 2r / (2 - c) - ...
  if (k === 0) return 1 - ((r * c) / (c - 2) - r);
  return scaleByPowerOfTwo(1 - ((low - (r * c) / (2 - c)) - high), k);
}

/** The natural logarithm of `x`; error under 1 ulp; NaN below zero. */
export function log(x: number): number {
  if (x === 0) return -Infinity;
  if (!(x > 0)) return NaN;
  if (x === Infinity) return x;
  const [fraction, k] = splitAtSqrtTwo(x);
  const f = fraction - 1;
  const s = f / (2 + f);
  const z = s * s;
  const w = z * z;
  const series = w * polynomial(w, LOG_EVEN) + z * polynomial(w, LOG_ODD);
  const half = 0.5 * f * f;
  return k * LN2_HIGH - ((half - (s * (half + series) + k * LN2_LOW)) - f);
}

/** x = fraction * 2^exponent with the fraction in [sqrt(1/2), sqrt(2)]. */
function splitAtSqrtTwo(x: number): [fraction: number, exponent: number] {
  const subnormal = biasedExponent(x) === 0;
  const normal = subnormal ? x * 2 ** 54 : x;
  const exponent = biasedExponent(normal) - 1023;
  const fraction = exponent > 1022 ? normal * 0.5 ** 1023 : normal * powerOfTwo(-exponent);
  const halved = fraction > Math.SQRT2;
  return [halved ? fraction / 2 : fraction, exponent + (halved ? 1 : 0) - (subnormal ? 54 : 0)];
}

/** The sine of `x` radians; error under 1 ulp at every magnitude. */
export function sin(x: number): number {
  const { quadrant, high, low } = reducePiOverTwo(x);
  const value = quadrant & 1 ? cosKernel(high, low) : sinKernel(high, low);
  return quadrant & 2 ? -value : value;
}

/** The cosine of `x` radians; error under 1 ulp at every magnitude. */
export function cos(x: number): number {
  const { quadrant, high, low } = reducePiOverTwo(x);
  const value = quadrant & 1 ? sinKernel(high, low) : cosKernel(high, low);
  return (quadrant + 1) & 2 ? -value : value;
}

/** sin(x + y) for |x| <= pi/4 and a tail y. */
function sinKernel(x: number, y: number): number {
  const z = x * x;
  if (z < 1e-16) return x; // keeps -0 and subnormals
  const cube = z * x;
  return x - ((z * (0.5 * y - cube * polynomial(z, SIN)) - y) - cube * SIN_CUBE);
}

/** cos(x + y) for |x| <= pi/4 and a tail y. */
function cosKernel(x: number, y: number): number {
  const z = x * x;
  const half = 0.5 * z;
  const w = 1 - half;
  return w + (((1 - w) - half) + (z * (z * polynomial(z, COS)) - x * y));
}

const TWO_OVER_PI = 6.36619772367581382433e-01;
// pi/2 in pieces of 33 bits, so that quadrant * piece is exact for quadrants below 2^20.
const PI_OVER_TWO_1 = 1.57079632673412561417;
const PI_OVER_TWO_2 = 6.07710050630396597660e-11;
const PI_OVER_TWO_3 = 2.02226624871116645580e-21;
const PI_OVER_TWO_3_TAIL = 8.47842766036889956997e-32;

function reducePiOverTwo(x: number): ReducedAngle {
  const magnitude = Math.abs(x);
  if (magnitude <= Math.PI / 4) return { quadrant: 0, high: x, low: 0 };
  if (!(magnitude < 1e6)) return reduceHugeAngle(x);
  const quadrant = Math.round(x * TWO_OVER_PI);
  // Always all pieces: 151 bits cover the worst cancellation below 1e6.
  const [r1, e1] = pair.twoSum(x - quadrant * PI_OVER_TWO_1, -quadrant * PI_OVER_TWO_2);
  const [r2, e2] = pair.twoSum(r1, -quadrant * PI_OVER_TWO_3);
  const tail = e1 + e2 - quadrant * PI_OVER_TWO_3_TAIL;
  const high = r2 + tail;
  return { quadrant, high, low: (r2 - high) + tail };
}

/**
 * `base` to the power `exponent`, with the special cases of the `**` operator; computed in double-double
 * arithmetic, so next to always correctly rounded.
 */
export function pow(base: number, exponent: number): number {
  if (exponent === 0) return 1;
  const ordinary = Number.isFinite(base) && base !== 0 && base !== 1 && Number.isFinite(exponent);
  if (!ordinary) return base ** exponent; // zeros, ones, infinities and NaN, which the standard fixes
  if (base < 0 && !Number.isInteger(exponent)) return NaN;
  // |log(base)| is at least 1e-16, so beyond 1e20 everything overflows or vanishes.
  const clamped = Math.max(-1e20, Math.min(1e20, exponent));
  const logarithm = pair.log(...splitAtSqrtTwo(Math.abs(base)));
  const magnitude = pair.exp(pair.scale(logarithm, clamped));
  return base < 0 && exponent % 2 !== 0 ? -magnitude : magnitude;
}
