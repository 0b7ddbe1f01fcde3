/**
 * How values become codes, for all methods but GGUF's blocks:
 *
 *     y = R(value op factor[group])    op: times or by; R rounds to a float type
 *     code = an integer, a small float, or the rank among levels
 *
 * A method computes the numbers of its groups; kernels do the rest.
 */

import type { SmallFloat } from "../tensor/small_float.ts";
import type { FloatxFormat } from "./floatx.ts";

/** Types that weights are quantized from, and that steps are rounded to. */
export type FloatType = "float32" | "bfloat16" | "float16";

/** What codes are made of `y`. */
export type CodeRule = IntegerCodes | SmallFloatCodes | LevelCodes;

/** A rule for the codes of a matrix. */
export interface EncodeRule {
  /** The type that every step is rounded to. */
  readonly rounding: FloatType;
  readonly operation: "multiply" | "divide";
  /** One per group. */
  readonly factor: Float32Array;
  readonly code: CodeRule;
}

/** clamp(round(y + bias[group]) + zero[group], low, high) - origin, rounding half to even. */
export interface IntegerCodes {
  readonly kind: "integer";
  readonly low: number;
  readonly high: number;
  /** The integer whose code is 0. */
  readonly origin: number;
  /** Added to the values first and rounded as every step, one per group; nothing when absent. */
  readonly shift?: Float32Array;
  /** Added in float32, one per group; 0 when absent. */
  readonly bias?: Float32Array;
  /** Integers, one per group; 0 when absent. */
  readonly zero?: Float32Array;
  /** Whether NaN (0 / 0, 0 times infinity) counts as 0, not as `low`. */
  readonly nanIsZero: boolean;
}

/** The nearest small float, half to even; NaN (0 / 0, 0 times infinity) counts as the zero that it came from. */
export interface SmallFloatCodes {
  readonly kind: "float";
  readonly mantissaBits: number;
  /** Exponent of the least normal number. */
  readonly leastExponent: number;
  /** What is larger becomes this code, signs aside. */
  readonly largestCode: number;
  readonly signBit: number;
  /** Whether -0 keeps its sign. */
  readonly signedZero: boolean;
  /** `y` is clamped to this magnitude first. */
  readonly limit: number;
}

/** order[how many bounds lie below y]; NaN has none below. */
export interface LevelCodes {
  readonly kind: "levels";
  /** 15, rising. */
  readonly bounds: Float32Array;
  /** 16 codes. */
  readonly order: Uint8Array;
}

/** Integers from `low`, which has code 0 unless told otherwise, to `high`. */
export function integerCodes(
  low: number,
  high: number,
  options: Partial<Omit<IntegerCodes, "kind" | "low" | "high">> = {},
): IntegerCodes {
  return { kind: "integer", low, high, origin: low, nanIsZero: true, ...options };
}

/** An 8-bit float type, after clamping to `limit`. */
export function float8Codes(format: SmallFloat, limit: number = Infinity): SmallFloatCodes {
  const { exponentBits, mantissaBits, hasInfinity } = format;
  const codes = 2 ** (exponentBits + mantissaBits);
  return {
    kind: "float",
    mantissaBits,
    leastExponent: 2 - 2 ** (exponentBits - 1),
    largestCode: hasInfinity ? codes - 2 ** mantissaBits : codes - 2, // infinity, or the largest
    signBit: codes,
    signedZero: true,
    limit,
  };
}

/** A small float without infinity and NaN. */
export function floatxCodes(format: FloatxFormat, signedZero = true): SmallFloatCodes {
  const { bits, exponentBits, mantissaBits } = format;
  return {
    kind: "float",
    mantissaBits,
    leastExponent: 2 - 2 ** (exponentBits - 1),
    largestCode: 2 ** (bits - 1) - 1,
    signBit: 2 ** (bits - 1),
    signedZero,
    limit: Infinity,
  };
}

/** The same rule with other arrays of groups' numbers. */
export function mapNumbers(
  rule: EncodeRule,
  change: (numbers: Float32Array) => Float32Array,
): EncodeRule {
  const { code } = rule;
  const part = (numbers?: Float32Array) => numbers && change(numbers);
  return {
    ...rule,
    factor: change(rule.factor),
    code: code.kind === "integer"
      ? { ...code, shift: part(code.shift), bias: part(code.bias), zero: part(code.zero) }
      : code,
  };
}
