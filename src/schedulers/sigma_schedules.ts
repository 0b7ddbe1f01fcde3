/**
 * The sigma tables of flow matching, in the arithmetic NumPy gives Diffusers: float32 when the sigmas or timesteps
 * came from the caller, float64 when they were made here.
 */

import { exp, log, pow } from "../tensor/math.ts";
import { symmetricBetaQuantile } from "./beta_quantile.ts";

/** Rounds the result of one operation: `Math.fround`, or nothing. */
export type Rounding = (x: number) => number;

/** `numpy.linspace(start, stop, count)` in float64. */
export function linspace(start: number, stop: number, count: number): number[] {
  if (count === 1) return [start];
  const step = (stop - start) / (count - 1);
  return Array.from({ length: count }, (_, i) => i === count - 1 ? stop : i * step + start);
}

/** The static shift: shift * s / (1 + (shift - 1) * s). */
export function staticShift(sigmas: number[], shift: number, round: Rounding): number[] {
  const numerator = round(shift);
  const slope = round(shift - 1);
  return sigmas.map((s) => round(round(numerator * s) / round(1 + round(slope * s))));
}

/** The dynamic shift: e / (e + (1 / s - 1)), with e = exp(mu), or mu itself when linear. */
export function dynamicShift(
  sigmas: number[],
  mu: number,
  type: "exponential" | "linear",
  round: Rounding,
): number[] {
  const e = round(type === "exponential" ? exp(mu) : mu);
  return sigmas.map((s) => round(e / round(e + round(round(1 / s) - 1))));
}

/** Stretches 1 - s so that the last sigma becomes `terminal`. */
export function stretchToTerminal(sigmas: number[], terminal: number, round: Rounding): number[] {
  const last = round(1 - sigmas[sigmas.length - 1]);
  const factor = round(last / round(1 - terminal));
  return sigmas.map((s) => round(1 - round(round(1 - s) / factor)));
}

/** Karras et al. 2022, equation 5, with rho 7. */
export function karrasSigmas(first: number, last: number, count: number): number[] {
  const rho = 7;
  const start = pow(first, 1 / rho);
  const stop = pow(last, 1 / rho);
  return linspace(0, 1, count).map((ramp) => pow(start + ramp * (stop - start), rho));
}

/** Evenly spaced logarithms. */
export function exponentialSigmas(first: number, last: number, count: number): number[] {
  return linspace(log(first), log(last), count).map(exp);
}

/** Quantiles of Beta(0.6, 0.6): "Beta Sampling is All You Need" (2407.12173). */
export function betaSigmas(first: number, last: number, count: number): number[] {
  return linspace(0, 1, count).map((t) => last + betaQuantile(1 - t) * (first - last));
}

/**
 * SciPy's median of Beta(0.6, 0.6) is one ulp above the true 1/2. That shows, because the sigma half-way between two
 * float32 values can be a tie between two others.
 */
function betaQuantile(probability: number): number {
  return probability === 0.5 ? 0.5 + 2 ** -53 : symmetricBetaQuantile(probability, 0.6);
}
