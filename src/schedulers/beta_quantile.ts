/** Quantiles of the symmetric Beta distribution. */

import { pow } from "../tensor/math.ts";

/**
 * The value below which a Beta(shape, shape) variable falls with the given probability; relative error about
 * 1e-14. `shape` is positive.
 */
export function symmetricBetaQuantile(probability: number, shape: number): number {
  if (probability <= 0) return 0;
  if (probability >= 1) return 1;
  if (probability > 0.5) return 1 - symmetricBetaQuantile(1 - probability, shape);
  const target = 2 * probability * incompleteBeta(0.5, shape);
  let x = Math.min(0.5, pow(shape * target, 1 / shape)); // exact in the limit of small x
  for (let i = 0; i < 100; i++) {
    const density = pow(x * (1 - x), shape - 1);
    const next = Math.min(0.5, Math.max(x / 4, x - (incompleteBeta(x, shape) - target) / density));
    if (Math.abs(next - x) <= 1e-16 * x) return next;
    x = next;
  }
  return x;
}

/**
 * The integral of (t (1 - t))^(shape - 1) from 0 to x, for x up to 1/2: the power series of (1 - t)^(shape - 1),
 * integrated term by term.
 */
function incompleteBeta(x: number, shape: number): number {
  let coefficient = 1; // (1 - shape)(2 - shape)...(n - shape) x^n / n!
  let sum = 1 / shape;
  for (let n = 1; n < 200; n++) {
    coefficient *= (n - shape) / n * x;
    const term = coefficient / (shape + n);
    sum += term;
    if (Math.abs(term) <= 1e-18 * sum) break;
  }
  return pow(x, shape) * sum;
}
