/** What ModelOpt multiplies by before it rounds to FP8, for weights and activations (tensor_quant.py). */

const fround = Math.fround;

/** Ranges up to this count as nothing. */
export const SMALLEST_AMAX: number = 2 ** -24;

/** 448 / amax, with an amax that is nothing as 1: PyTorch divides a number by a tensor as two products. */
export function fp8Scale(amax: number): number {
  return fround(448 * fround(1 / (amax <= SMALLEST_AMAX ? 1 : fround(amax))));
}
