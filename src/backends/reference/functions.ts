/** The scalar functions of the op table, in float64; the caller rounds once, to float32. */

import type { Activation, BinaryKind, UnaryKind } from "../../ops/op_table.ts";
import { exp } from "../../tensor/math.ts";
import { erfc } from "./erfc.ts";

/** A function of one number. */
export type ScalarFunction = (x: number) => number;

/** The activation functions by name. */
export const ACTIVATIONS: { readonly [name in Activation]: ScalarFunction } = {
  identity: (x) => x,
  silu: (x) => x * sigmoid(x),
  gelu_tanh: (x) => x * sigmoid(GELU_TANH_SCALE * (x + 0.044715 * x * x * x)),
  gelu_erf: (x) => x * 0.5 * erfc(-x * Math.SQRT1_2),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu: (x) => x < 0 ? 0 : x,
};

/** The unary function of a kind; multiplier and addend matter to "affine" only. */
export function unaryFunction(kind: UnaryKind, multiplier: number, addend: number): ScalarFunction {
  switch (kind) {
    case "exp":
      return exp;
    case "rsqrt":
      return (x) => 1 / Math.sqrt(x);
    case "affine":
      return (x) => x * multiplier + addend;
    default:
      return ACTIVATIONS[kind];
  }
}

/** The binary functions by name. */
export const BINARY_FUNCTIONS: { readonly [kind in BinaryKind]: (a: number, b: number) => number } =
  {
    add: (a, b) => a + b,
    subtract: (a, b) => a - b,
    multiply: (a, b) => a * b,
    divide: (a, b) => a / b,
  };

// (1 + tanh(u)) / 2 = sigmoid(2 u), which loses no digits where tanh(u) is near -1.
const GELU_TANH_SCALE = 2 * Math.sqrt(2 / Math.PI);

function sigmoid(x: number): number {
  return 1 / (1 + exp(-x));
}
