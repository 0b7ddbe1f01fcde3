/** Layers of many rows over float8 activations and weights, of sizes that float8 units take. */

import type { CodeDType, QuantizedActivations } from "../../src/ops/activation_mode.ts";
import type { ScaleLayout } from "../../src/quantization/quantized_tensor.ts";
import { toFloat32 } from "../../src/tensor/convert.ts";
import { int8 } from "../backends/conformance/activation_cases.ts";
import type { ConformanceCase } from "../backends/conformance/cases.ts";
import type { TestFormat } from "../backends/conformance/formats.ts";
import { buildLinearCase, type Ending, ENDINGS } from "../backends/conformance/weight_cases.ts";
import { quantizedWeight } from "../backends/conformance/weights.ts";
import type { BudgetName } from "../backends/error_budgets.ts";

type Float8 = Exclude<CodeDType, "int8">;

const LARGEST = { float8_e4m3fn: 448, float8_e5m2: 57344 } as const;

/** Activations of one type of float8. */
export function activations(
  dtype: Float8,
  granularity: "row" | "tensor",
  scale = int8({ levels: LARGEST[dtype], rounding: "quotient" }).scale,
): QuantizedActivations {
  const [lowest, highest] = [-LARGEST[dtype], LARGEST[dtype]];
  return { kind: "quantized", dtype, granularity, lowest, highest, scale };
}

/** E4m3 with a scale for each row, for all, and one known before. */
export const ROW = activations("float8_e4m3fn", "row");
export const TENSOR = activations("float8_e4m3fn", "tensor");
export const STATIC = activations("float8_e4m3fn", "tensor", {
  kind: "static",
  scale: 3 / 448,
  inverse: 448 / 3,
  zero: 0,
});

/** Float8 weights with a scale for so many rows each, 0 for all; no code is a NaN. */
export function format(
  rows: number,
  scale: ScaleLayout = { kind: "float", dtype: "float32" },
  dtype: Float8 = "float8_e4m3fn",
): TestFormat {
  const table = toFloat32(dtype, Uint8Array.from({ length: 256 }, (_, code) => code));
  return {
    name: `${dtype}, ${rows || "all"} rows ${JSON.stringify(scale)}`,
    kind: "quantized",
    make: (random, n, k) =>
      quantizedWeight(random, [n, k], {
        bits: 8,
        value: { kind: "table", table },
        groupSize: (rows || n) * k,
        scale,
        offset: null,
      }, () => random.integer(0, 1) * 128 + random.integer(0, 120)),
  };
}

/** A scale for each row of the weight, and one for all of it. */
export const BY_ROW = format(1);
export const BY_TENSOR = format(0);
/** Float8 weights by how their scales lie. */
export const FLOAT8_FORMATS = [
  BY_ROW,
  BY_TENSOR,
  format(2),
  format(1, { kind: "float", dtype: "bfloat16" }),
  format(1, { kind: "float", dtype: "float32", multiplier: 0.25 }),
];
/** Nothing follows, or a residual does. */
export const PLAIN: Ending = { activation: "identity", bias: false, gate: "none", residual: false };
export const ADDED: Ending = { ...PLAIN, residual: true };
const ALL_ENDINGS = [...ENDINGS, ADDED];
const SIZES = [
  { m: 66, n: 48, k: 96 },
  { m: 131, n: 16, k: 208 },
];

/** A layer over float8 activations. */
export function layer(
  mode: QuantizedActivations,
  weight: TestFormat,
  ending: Ending,
  seed: number,
  size = SIZES[0]!,
  budget: BudgetName = "linear/quantized activations",
): ConformanceCase {
  return buildLinearCase(weight, ending, size, seed, { mode, budget });
}

/** Every mode over weights of every kind. */
export function float8Cases(budget?: BudgetName): ConformanceCase[] {
  return [ROW, TENSOR, STATIC].flatMap((mode, i) =>
    FLOAT8_FORMATS.flatMap((weight, f) =>
      [0, 3, 6].map((step) => {
        const e = (i + f + step) % ALL_ENDINGS.length;
        const seed = 71000 + 1000 * i + 100 * f + e;
        return layer(mode, weight, ALL_ENDINGS[e]!, seed, SIZES[(f + e) % 2], budget);
      })
    )
  );
}
