/**
 * Every op's error budget against a float64 evaluation, the only place where a tolerance stands.
 * `nmse` is the squared error over the squared expectation; `maxAbs` the largest error over the
 * largest expected magnitude. Loosening one is a commit of its own that states the cause.
 */

/** What an op may be off by. */
export interface ErrorBudget {
  readonly nmse: number;
  readonly maxAbs: number;
}

/** Moves and conversions change no value. */
const EXACT: ErrorBudget = { nmse: 0, maxAbs: 0 };
/** A few float32 roundings per element. */
const ELEMENTWISE: ErrorBudget = { nmse: 1e-12, maxAbs: 1e-6 };
/** Sums in float32, in any order. */
const SUMS: ErrorBudget = { nmse: 1e-10, maxAbs: 1e-5 };

/** Results rounded to a significand of so many bits, and what follows in float32; activations grow it by 1.1. */
const rounded = (bits: number): ErrorBudget => ({
  nmse: 1.21 * 4 ** -bits,
  maxAbs: 1.1 * 2 ** -bits,
});
const FLOAT16 = rounded(11);
const BFLOAT16 = rounded(8);

/** The budgets by op, and by weight format where an op has one. */
export const ERROR_BUDGETS = {
  "copy": EXACT,
  "unary": ELEMENTWISE,
  "binary": ELEMENTWISE,
  "reduce/max": EXACT,
  "reduce/sum": SUMS,
  "reduce/mean": SUMS,
  "gather": EXACT,
  "unpack": EXACT,
  "matmul": SUMS,
  "conv2d": SUMS,
  // Against the same rounding of operands; cuDNN rounds the results too.
  "conv2d/float16": FLOAT16,
  "conv2d/bfloat16": BFLOAT16,
  "linear/dense": SUMS,
  "linear/quantized": SUMS,
  // Against the same rounding of activations; a code may only differ where a float32 product does.
  "linear/llm_int8": SUMS,
  "linear/quantized activations": SUMS,
  // Of float8 units on a device, which keep about 14 bits of a sum: Hopper's, by DeepSeek-V3's report (section 3.3.2).
  "linear/float8 units": { nmse: 1e-6, maxAbs: 1e-3 },
  // Against the unrounded product: what int8 activations cost at all.
  "linear/llm_int8 against float": { nmse: 5e-4, maxAbs: 5e-2 },
  "norm": SUMS,
  "attention": SUMS,
  // Likewise; before they meet v, the shares are rounded as well.
  "attention/float16": { nmse: 2 * FLOAT16.nmse, maxAbs: 2 * FLOAT16.maxAbs },
  "attention/bfloat16": { nmse: 2 * BFLOAT16.nmse, maxAbs: 2 * BFLOAT16.maxAbs },
  // Against the same rounding of q and k.
  "attention/int8": SUMS,
  // Against the unrounded product, logits of a standard deviation of about 1: what int8 costs at all.
  "attention/int8 against float": { nmse: 5e-4, maxAbs: 5e-2 },
  "headNormRope": SUMS,
} as const satisfies Record<string, ErrorBudget>;

/** The name of a budget. */
export type BudgetName = keyof typeof ERROR_BUDGETS;
