/**
 * The float32 logarithm, sine and cosine of PyTorch's vectorised Box-Muller kernel, bit for bit.
 *
 * They are the cephes polynomials of ATen's `avx_mathfun.h` (Pommier 2007) as compiled for x86-64 with AVX2:
 * the compiler contracted multiplications and additions into fused ones, so the order below matters.
 */

const f32 = Math.fround;

/** `a * b + c` for float32 values with one rounding. */
export function fusedMultiplyAdd(a: number, b: number, c: number): number {
  const product = a * b; // exact: 48 bits
  const sum = product + c;
  const rounded = f32(sum);
  const distance = sum - rounded;
  const opposite = sum + distance; // the other neighbour, if the sum lies half-way between two floats
  if (distance === 0 || f32(opposite) !== opposite) return rounded;
  return resolveTie(product, c, sum, distance, rounded, opposite);
}

/** Half-way in double: what the double sum lost decides, and an exact tie keeps the even neighbour. */
function resolveTie(
  product: number,
  c: number,
  sum: number,
  distance: number,
  rounded: number,
  opposite: number,
): number {
  const partOfC = sum - product;
  const lost = (product - (sum - partOfC)) + (c - partOfC);
  return lost * distance > 0 ? opposite : rounded;
}

const LOG_POLYNOMIAL = Float32Array.of(
  7.0376836292e-2,
  -1.1514610310e-1,
  1.1676998740e-1,
  -1.2420140846e-1,
  1.4249322787e-1,
  -1.6668057665e-1,
  2.0000714765e-1,
  -2.4999993993e-1,
  3.3333331174e-1,
);
const LN2_LOW = f32(-2.12194440e-4);
const LN2_HIGH = 0.693359375;
const SQRT_HALF = f32(0.707106781186547524);

const bits = new Uint32Array(1);
const value = new Float32Array(bits.buffer);

/** The float32 natural logarithm of a positive normal float32. */
export function logFloat32(x: number): number {
  value[0] = x;
  let exponent = (bits[0] >>> 23) - 126;
  bits[0] = (bits[0] & 0x7fffff) | 0x3f000000;
  const mantissa = value[0]; // in [1/2, 1)
  let r = f32(mantissa - 1);
  if (mantissa < SQRT_HALF) {
    exponent -= 1;
    r = f32(r + mantissa);
  }
  const square = f32(r * r);
  let y = LOG_POLYNOMIAL[0];
  for (let k = 1; k < 9; k++) y = fusedMultiplyAdd(y, r, LOG_POLYNOMIAL[k]);
  y = fusedMultiplyAdd(f32(y * r), square, f32(exponent * LN2_LOW));
  y = f32(y - 0.5 * square);
  return f32(f32(r + y) + exponent * LN2_HIGH);
}

const FOUR_OVER_PI = f32(1.27323954473516);
const MINUS_PI_OVER_FOUR = Float32Array.of(
  -0.78515625,
  -2.4187564849853515625e-4,
  -3.77489497744594108e-8,
);
const COS_POLYNOMIAL = Float32Array.of(
  2.443315711809948e-5,
  -1.388731625493765e-3,
  4.166664568298827e-2,
);
const SIN_POLYNOMIAL = Float32Array.of(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1);

/** Writes the float32 sine and cosine of x >= 0 (below 8192) into `result[0]` and `result[1]`. */
export function sinCosFloat32(x: number, result: Float64Array): void {
  const octant = (Math.trunc(f32(x * FOUR_OVER_PI)) + 1) & ~1;
  let r = x;
  for (let k = 0; k < 3; k++) r = fusedMultiplyAdd(octant, MINUS_PI_OVER_FOUR[k], r);
  const square = f32(r * r);
  const sine = sineOfRemainder(r, square);
  const cosine = cosineOfRemainder(square);
  const swap = (octant & 2) !== 0;
  const sineSign = octant & 4 ? -1 : 1;
  const cosineSign = ~(octant - 2) & 4 ? -1 : 1;
  result[0] = sineSign * (swap ? cosine : sine);
  result[1] = cosineSign * (swap ? sine : cosine);
}

function cosineOfRemainder(square: number): number {
  const [c0, c1, c2] = COS_POLYNOMIAL;
  const series = fusedMultiplyAdd(fusedMultiplyAdd(c0, square, c1), square, c2);
  return f32(fusedMultiplyAdd(f32(series * square), square, -f32(square * 0.5)) + 1);
}

function sineOfRemainder(r: number, square: number): number {
  const [s0, s1, s2] = SIN_POLYNOMIAL;
  const series = fusedMultiplyAdd(fusedMultiplyAdd(s0, square, s1), square, s2);
  return fusedMultiplyAdd(f32(series * square), r, r);
}
