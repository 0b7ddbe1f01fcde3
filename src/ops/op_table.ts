/**
 * The op table: the one source of op names, opcodes and attributes. The TypeScript backends use it
 * directly; `deno task generate-opcodes` writes the Rust (and later CUDA and WGSL) constants from it.
 *
 * Conventions. Activations are float32 (int32 for ids). Every op but `copy`, `binary` and `matmul`
 * sees an operand as a matrix [rows, columns]: the innermost stride is 1 and all outer axes collapse
 * to one row stride. Strides are in elements. An output never overlaps an input, except that `unary`,
 * `binary`, `norm` and `headNormRope` may write exactly over their first input, and `linear` and
 * `conv2d` over their residual.
 */

import type { ActivationMode } from "./activation_mode.ts";

/** Elementwise functions of one operand. */
export const UNARY_KINDS = [
  "identity",
  "silu", // x * sigmoid(x)
  "gelu_tanh", // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
  "gelu_erf", // 0.5 x (1 + erf(x / sqrt 2))
  "quick_gelu", // x * sigmoid(1.702 x)
  "relu",
  "exp",
  "rsqrt",
  "affine", // x * multiplier + addend
] as const;
export type UnaryKind = typeof UNARY_KINDS[number];

/** The activations a fused op may apply at its end. */
export type Activation = "identity" | "silu" | "gelu_tanh" | "gelu_erf" | "quick_gelu" | "relu";

/** Elementwise functions of two operands. */
export const BINARY_KINDS = ["add", "subtract", "multiply", "divide"] as const;
export type BinaryKind = typeof BINARY_KINDS[number];

/** Reductions over the last axis. */
export const REDUCE_KINDS = ["sum", "mean", "max"] as const;
export type ReduceKind = typeof REDUCE_KINDS[number];

/** Normalisations. */
export const NORM_KINDS = ["layer", "rms", "group"] as const;
export type NormKind = typeof NORM_KINDS[number];

/** The attributes of each op. */
export interface OpAttributes {
  /** input -> output of the same shape, any strides on both sides (stride 0 repeats), rank <= 6. */
  copy: Record<never, never>;
  /** input -> output. */
  unary: { kind: UnaryKind; multiplier: number; addend: number };
  /** a, b -> output; views with stride 0 broadcast; rank <= 4. */
  binary: { kind: BinaryKind };
  /** input [rows, columns] -> output [rows, 1]. */
  reduce: { kind: ReduceKind };
  /** ids int32 [n], table (weight) [entries, columns] -> output [n, columns]. An id out of range fails. */
  gather: Record<never, never>;
  /** a [batch, m, k], b [batch, n, k] (any strides) -> output [batch, m, n] = scale * a b^T. */
  matmul: { scale: number };
  /** weight [n, k] in any layout -> output float32 [n, k]: the weight dequantized. */
  unpack: Record<never, never>;
  /**
   * x [height, width, channels], weight [out, kernel, kernel, channels], bias? [out],
   * residual? [outHeight, outWidth, out] -> output. x is first enlarged `upsample` times (nearest).
   * padding is [top, left, bottom, right] of zeros. output = act(conv + bias) + residual.
   */
  conv2d: {
    kernel: number;
    stride: number;
    padding: readonly [number, number, number, number];
    upsample: 1 | 2;
    activation: Activation;
  };
  /**
   * x [m, k], weight [n, k] in any layout, bias? [n], gate? [1 | m, n], residual? [m, n] -> output [m, n]
   * = residual + gate * act(x weight^T + bias); x is rounded first where `activations` says so.
   */
  linear: { activation: Activation; activations: ActivationMode };
  /**
   * x [rows, columns], weight? [columns], bias? [columns], scale? [1 | rows, columns], shift? likewise
   * -> output = act((norm(x) * weight + bias) * (1 + scale) + shift).
   * layer: over columns, biased variance. rms: over columns, no mean. group: over all rows and
   * columns / groups consecutive columns at once (x is [height * width, channels]).
   */
  norm: { kind: NormKind; epsilon: number; groups: number; activation: Activation };
  /**
   * q [queries, heads * d], k, v [keys, heads * d], bias? [heads, queries, keys] -> output [queries, heads * d]
   * = softmax(scale * q k^T + bias) v per head; causal: query i sees keys 0..i. With `qkDtype` "int8" q, and k
   * less its mean over all keys (which no softmax sees), are rounded first, as LLM_INT8_ROWS of
   * activation_mode.ts says, each row of a head by itself; the mean is a sum in float64, key after key, over
   * their number, rounded to float32.
   */
  attention: { heads: number; scale: number; causal: boolean; qkDtype?: "int8" };
  /**
   * x [rows, heads * d], weight [d], cos? [rows, d], sin? [rows, d] -> output: RMS norm over each head's d
   * values times weight, then rotation of adjacent pairs (a, b) -> (a cos - b sin, b cos + a sin).
   */
  headNormRope: { heads: number; epsilon: number };
}

/** The name of an op. */
export type OpName = keyof OpAttributes;

/** What the table says of an op. */
export interface OpInfo {
  /** Stable number of the op in tapes and native code. */
  readonly opcode: number;
  /** Names of the operands in order; a trailing "?" marks an optional one. */
  readonly operands: readonly string[];
  /** Whether every backend must have it; the others have a decomposition into required ones. */
  readonly required: boolean;
}

/** The table. */
export const OP_TABLE: { readonly [name in OpName]: OpInfo } = {
  copy: { opcode: 1, operands: ["input"], required: true },
  unary: { opcode: 2, operands: ["input"], required: true },
  binary: { opcode: 3, operands: ["a", "b"], required: true },
  reduce: { opcode: 4, operands: ["input"], required: true },
  gather: { opcode: 5, operands: ["ids", "table"], required: true },
  matmul: { opcode: 6, operands: ["a", "b"], required: true },
  unpack: { opcode: 7, operands: ["weight"], required: true },
  conv2d: { opcode: 8, operands: ["x", "weight", "bias?", "residual?"], required: true },
  linear: { opcode: 9, operands: ["x", "weight", "bias?", "gate?", "residual?"], required: false },
  norm: { opcode: 10, operands: ["x", "weight?", "bias?", "scale?", "shift?"], required: false },
  attention: { opcode: 11, operands: ["q", "k", "v", "bias?"], required: false },
  headNormRope: { opcode: 12, operands: ["x", "weight", "cos?", "sin?"], required: false },
};

/** Op names in opcode order. */
export const OP_NAMES = Object.keys(OP_TABLE) as readonly OpName[];
