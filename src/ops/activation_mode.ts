/**
 * How a linear op treats x. Quantized activations are rounded to small codes,
 *
 *     code = clamp(round(x / scale) + zero, lowest, highest),   x' = (code - zero) * scale,
 *
 * and y = x' w^T. Every step is a float32 operation, ties go to even, and which codes come out is part of
 * the meaning; how the sums over codes are taken is a backend's own choice (integer sums are exact). A
 * scale of 0 makes all codes the zero. A NaN or an infinity among the values that share a scale gives NaN.
 */

/** Types of codes. */
export const CODE_DTYPES = ["int8", "float8_e4m3fn", "float8_e5m2"] as const;
export type CodeDType = typeof CODE_DTYPES[number];

/**
 * How x becomes a code: divided by the scale; times the rounded reciprocal of the scale; or times
 * levels / absmax, the scale's own reciprocal rounded once.
 */
export const CODE_ROUNDINGS = ["quotient", "reciprocal", "ratio"] as const;
export type CodeRounding = typeof CODE_ROUNDINGS[number];

/** A scale found from x at every run. */
export interface DynamicScale {
  readonly kind: "dynamic";
  /**
   * symmetric: scale = max |x| / levels and zero = 0. asymmetric (int8 only): scale = (max(x, 0) -
   * min(x, 0)) / levels and zero = clamp(lowest - round(min(x, 0) / scale), lowest, highest).
   */
  readonly mapping: "symmetric" | "asymmetric";
  readonly levels: number;
  /** Smaller scales become this one. */
  readonly least: number;
  readonly rounding: CodeRounding;
}

/** A scale known before, one for all of x; x is multiplied by `inverse` to become a code. */
export interface StaticScale {
  readonly kind: "static";
  readonly scale: number;
  readonly inverse: number;
  readonly zero: number;
}

/** Activations as codes. */
export interface QuantizedActivations {
  readonly kind: "quantized";
  readonly dtype: CodeDType;
  /** Which values share a scale: those of a row (a token), or all of x. */
  readonly granularity: "row" | "tensor";
  /** Codes (for float8: their values) are clamped to this range. */
  readonly lowest: number;
  readonly highest: number;
  readonly scale: DynamicScale | StaticScale;
  /**
   * Lets a weight's table of at most 16 values be rounded to integers of 16 bits times largest |value| / 32767,
   * so that NF4 is multiplied in integers: an error of at most 1.6e-5 of the largest value. int8 only.
   */
  readonly int16Tables?: boolean;
}

/** How a linear op treats its activations. */
export type ActivationMode =
  | { readonly kind: "float" }
  /** bitsandbytes LLM.int8(): int8 rows, columns holding an |x| >= threshold apart in float. 0 disables the split. */
  | { readonly kind: "llm_int8"; readonly threshold: number }
  | QuantizedActivations;

/** Whether each row of x is treated by itself, so that rows may be run together or apart. */
export function isRowWise(mode: ActivationMode): boolean {
  if (mode.kind !== "quantized") return mode.kind === "float";
  return mode.granularity === "row" || mode.scale.kind === "static";
}

/** The mode in a few words, as tables show it: "float", "llm_int8", "int8 per row", "float8_e4m3fn static". */
export function activationsText(mode: ActivationMode): string {
  if (mode.kind !== "quantized") return mode.kind;
  return `${mode.dtype} ${mode.scale.kind === "static" ? "static" : `per ${mode.granularity}`}`;
}

/** How LLM.int8() rounds the columns that hold no outlier. */
export const LLM_INT8_ROWS: QuantizedActivations = {
  kind: "quantized",
  dtype: "int8",
  granularity: "row",
  lowest: -127,
  highest: 127,
  scale: { kind: "dynamic", mapping: "symmetric", levels: 127, least: 0, rounding: "ratio" },
};
