/** Layers of many rows over int8 activations and integer weights: their sums are exact. */

import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import { int8 } from "../backends/conformance/activation_cases.ts";
import type { ConformanceCase } from "../backends/conformance/cases.ts";
import { coded, integer, quantized, type TestFormat } from "../backends/conformance/formats.ts";
import { buildLinearCase, ENDINGS, formatOf } from "../backends/conformance/weight_cases.ts";

const FLOAT = { kind: "float", dtype: "float32" } as const;
const ZERO = { kind: "integer", zeroPoint: 0 } as const;

/** What a device does differently: scales of rows or all, zeros, fewer levels, LLM.int8(). */
export function int8Modes(): readonly ActivationMode[] {
  const asymmetric = { levels: 255, least: 2 ** -23, mapping: "asymmetric" } as const;
  const reciprocal = { rounding: "reciprocal" } as const;
  return [
    int8({ levels: 127.5, least: 2 ** -23, ...reciprocal }),
    int8({ ...asymmetric, ...reciprocal }),
    { ...int8({ levels: 127, rounding: "ratio" }), granularity: "tensor" },
    { ...int8({ ...asymmetric, ...reciprocal }), granularity: "tensor" },
    { ...int8({}), scale: { kind: "static", scale: 0.03, inverse: 1 / 0.03, zero: 0 } },
    { ...int8({}), scale: { kind: "static", scale: 0.02, inverse: 50, zero: -31 } },
  ];
}

/** Rows with one scale, or sharing one, whose codes 8 bits hold. */
export const INT8_FORMATS: readonly TestFormat[] = [
  formatOf("8-bit integer, row f32 x 1/127"),
  formatOf("4-bit integer, row bf16"),
  quantized("7-bit integer from 0, two rows", (_, __, columns) => ({
    bits: 7,
    value: ZERO,
    groupSize: 2 * columns,
    scale: FLOAT,
  })),
  quantized("3-bit integer, tensor coded", (_, rows, columns) => ({
    ...integer(3),
    groupSize: rows * columns,
    scale: coded(integer(6).value, 6, 16, "float16"),
  })),
];

/** Weights whose sums are no int32 sums of int8. */
export const OTHER_FORMATS: readonly TestFormat[] = [
  formatOf("8-bit integer without a zero point, 64 f32"),
  formatOf("4-bit integer, 32 f16"),
  quantized("8-bit integer from 0, row", (_, __, columns) => ({
    bits: 8,
    value: ZERO,
    groupSize: columns,
    scale: FLOAT,
  })),
  quantized("4-bit integer, row, offset", (_, __, columns) => ({
    ...integer(4),
    groupSize: columns,
    scale: FLOAT,
    offset: FLOAT,
  })),
];

/** Sums in the output and beside it, rows of any length. */
export const INT8_SIZES = [
  { m: 66, n: 48, k: 96 },
  { m: 67, n: 130, k: 200 },
  { m: 65, n: 33, k: 515 },
  { m: 130, n: 16, k: 64 },
  { m: 257, n: 1, k: 31 },
];

/** Every mode over weights of every kind. */
export function int8Cases(): ConformanceCase[] {
  return int8Modes().flatMap((mode, i) =>
    INT8_FORMATS.flatMap((format, f) =>
      [i + f, i + f + 2].map((s) => {
        const size = INT8_SIZES[s % INT8_SIZES.length]!;
        const ending = ENDINGS[(i + f + s) % ENDINGS.length]!;
        const options = { mode, budget: "linear/quantized activations" } as const;
        return buildLinearCase(format, ending, size, 61000 + 100 * i + 10 * f + s, options);
      })
    )
  );
}

/** LLM.int8() with and without outliers. */
export function llmInt8Cases(): ConformanceCase[] {
  return INT8_SIZES.flatMap((size, s) =>
    [0, 2.5, 6].map((threshold, t) => {
      const mode = { kind: "llm_int8", threshold } as const;
      const ending = ENDINGS[(3 * s + t) % ENDINGS.length]!;
      const options = { mode, budget: "linear/llm_int8" } as const;
      return buildLinearCase(INT8_FORMATS[0]!, ending, size, 62000 + 10 * s + t, options);
    })
  );
}
