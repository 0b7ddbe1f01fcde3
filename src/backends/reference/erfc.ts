/**
 * The complementary error function, after W. J. Cody, "Rational Chebyshev approximations for the
 * error function", Mathematics of Computation 23 (1969): relative error below 1e-15 where the
 * result is a normal number.
 */

import { exp } from "../../tensor/math.ts";

/** 1 - erf(x), accurate in the tail. */
export function erfc(x: number): number {
  const magnitude = Math.abs(x);
  if (magnitude <= 0.46875) return 1 - erfSmall(x);
  const tail = magnitude <= 4 ? erfcMiddle(magnitude) : erfcLarge(magnitude);
  return x < 0 ? 2 - tail : tail;
}

// erf(x) = x P(x^2) / Q(x^2), |x| <= 0.46875
const SMALL_NUMERATOR = [
  1.85777706184603153e-1,
  3.16112374387056560,
  1.13864154151050156e2,
  3.77485237685302021e2,
  3.20937758913846947e3,
];
const SMALL_DENOMINATOR = [
  1,
  2.36012909523441209e1,
  2.44024637934444173e2,
  1.28261652607737228e3,
  2.84423683343917062e3,
];

// erfc(x) = exp(-x^2) P(x) / Q(x), 0.46875 <= x <= 4
const MIDDLE_NUMERATOR = [
  2.15311535474403846e-8,
  5.64188496988670089e-1,
  8.88314979438837594,
  6.61191906371416295e1,
  2.98635138197400131e2,
  8.81952221241769090e2,
  1.71204761263407058e3,
  2.05107837782607147e3,
  1.23033935479799725e3,
];
const MIDDLE_DENOMINATOR = [
  1,
  1.57449261107098347e1,
  1.17693950891312499e2,
  5.37181101862009858e2,
  1.62138957456669019e3,
  3.29079923573345963e3,
  4.36261909014324716e3,
  3.43936767414372164e3,
  1.23033935480374942e3,
];

// erfc(x) = exp(-x^2) / x (1 / sqrt(pi) - P(1 / x^2) / (x^2 Q(1 / x^2))), x >= 4
const LARGE_NUMERATOR = [
  1.63153871373020978e-2,
  3.05326634961232344e-1,
  3.60344899949804439e-1,
  1.25781726111229246e-1,
  1.60837851487422766e-2,
  6.58749161529837803e-4,
];
const LARGE_DENOMINATOR = [
  1,
  2.56852019228982242,
  1.87295284992346047,
  5.27905102951428412e-1,
  6.05183413124413191e-2,
  2.33520497626869185e-3,
];

function erfSmall(x: number): number {
  const square = x * x;
  return x * polynomial(SMALL_NUMERATOR, square) / polynomial(SMALL_DENOMINATOR, square);
}

function erfcMiddle(x: number): number {
  return expOfMinusSquare(x) * polynomial(MIDDLE_NUMERATOR, x) /
    polynomial(MIDDLE_DENOMINATOR, x);
}

function erfcLarge(x: number): number {
  if (x > 27) return 0;
  const inverse = 1 / (x * x);
  const fraction = inverse * polynomial(LARGE_NUMERATOR, inverse) /
    polynomial(LARGE_DENOMINATOR, inverse);
  return expOfMinusSquare(x) * (1 / Math.sqrt(Math.PI) - fraction) / x;
}

/** exp(-x^2), with x^2 split so that its rounding error does not grow in the exponent. */
function expOfMinusSquare(x: number): number {
  const rounded = Math.trunc(x * 16) / 16;
  return exp(-rounded * rounded) * exp(-(x - rounded) * (x + rounded));
}

/** Horner's rule, highest power first. */
function polynomial(coefficients: readonly number[], x: number): number {
  return coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0);
}
