/** What operands of products are rounded to, by the definition of the types. */

import { roundToEven } from "../backends/conformance/rounded_activations.ts";
import type { MatmulPrecision } from "../../src/backends/cuda/matmul_precision.ts";

/** A value as an operand of this precision, or undefined where it stays as it is. */
export function operandRounding(
  precision: MatmulPrecision,
): ((value: number) => number) | undefined {
  switch (precision) {
    case "float32":
      return undefined;
    case "tensorfloat32":
      // Ties go away from zero, as in the cvt.rna.tf32 of PTX.
      return (value) =>
        nearest(value, 10, -126, (x) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5));
    case "float16":
      return (value) => nearest(value, 10, -14, roundToEven);
    case "bfloat16":
      return (value) => nearest(value, 7, -126, roundToEven);
  }
}

/** The nearest multiple of the step that a type has around a value. */
function nearest(
  value: number,
  mantissaBits: number,
  leastExponent: number,
  round: (value: number) => number,
): number {
  if (value === 0) return value;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), leastExponent);
  const step = 2 ** (exponent - mantissaBits);
  return round(value / step) * step;
}
