/** linear over activations that are rounded to codes. */

import type { DynamicScale, QuantizedActivations } from "../../../src/ops/activation_mode.ts";
import type { ConformanceCase } from "./cases.ts";
import { Random } from "./random.ts";
import {
  buildLinearCase,
  COLUMNS,
  DEPTHS,
  ENDINGS,
  formatOf,
  LARGE_FORMATS,
  ROWS,
  TILE_EDGES,
} from "./weight_cases.ts";

/** Modes by what they must differ in: type, granularity, mapping, rounding, scale. */
const MODES: readonly QuantizedActivations[] = [
  int8({ levels: 127.5, least: 2 ** -23, rounding: "reciprocal" }),
  int8({ levels: 255, least: 2 ** -23, mapping: "asymmetric", rounding: "reciprocal" }),
  int8({ levels: 255, least: 2 ** -126, mapping: "asymmetric", rounding: "reciprocal" }),
  { ...int8({ levels: 63.5, least: 2 ** -23, rounding: "reciprocal" }), lowest: -64, highest: 63 },
  int8({ levels: 127, least: 0, rounding: "ratio" }),
  { ...int8({ levels: 127.5, least: 2 ** -23, rounding: "reciprocal" }), granularity: "tensor" },
  {
    ...int8({ levels: 255, least: 2 ** -23, mapping: "asymmetric", rounding: "reciprocal" }),
    granularity: "tensor",
  },
  float8("float8_e4m3fn", 448, "row"),
  float8("float8_e4m3fn", 448, "tensor"),
  float8("float8_e5m2", 57344, "row"),
  { ...int8({}), scale: { kind: "static", scale: 0.03, inverse: 1 / 0.03, zero: 0 } },
  { ...int8({}), scale: { kind: "static", scale: 0.02, inverse: 50, zero: -31 } },
  {
    ...float8("float8_e4m3fn", 448, "tensor"),
    scale: { kind: "static", scale: 3 / 448, inverse: 448 / 3, zero: 0 },
  },
  { ...int8({}), scale: { kind: "static", scale: 0, inverse: 0, zero: 0 } },
];

/** int8 per row, symmetric unless `scale` says otherwise. */
export function int8(scale: Partial<DynamicScale>): QuantizedActivations {
  return {
    kind: "quantized",
    dtype: "int8",
    granularity: "row",
    lowest: -128,
    highest: 127,
    scale: {
      kind: "dynamic",
      mapping: "symmetric",
      levels: 127,
      least: 0,
      rounding: "ratio",
      ...scale,
    },
  };
}

function float8(
  dtype: "float8_e4m3fn" | "float8_e5m2",
  largest: number,
  granularity: "row" | "tensor",
): QuantizedActivations {
  const { scale } = int8({ levels: largest, rounding: "quotient" });
  return { kind: "quantized", dtype, granularity, lowest: -largest, highest: largest, scale };
}

/** Cases of linear over rounded activations: every mode over weights of every kind. */
export function quantizedActivationCases(): ConformanceCase[] {
  return MODES.flatMap((mode, i) => {
    const random = new Random(33000 + i);
    const options = { mode, budget: "linear/quantized activations" } as const;
    const small = LARGE_FORMATS.flatMap((name, f) =>
      [0, 1].map((r) => {
        const size = { m: random.pick(ROWS), n: random.pick(COLUMNS), k: random.pick(DEPTHS) };
        const ending = ENDINGS[(f + r) % ENDINGS.length];
        return buildLinearCase(formatOf(name), ending, size, 34000 + 100 * i + 10 * r + f, options);
      })
    );
    const { [i % TILE_EDGES.length]: edge } = TILE_EDGES;
    const name = LARGE_FORMATS[i % LARGE_FORMATS.length];
    return [...small, buildLinearCase(formatOf(name), ENDINGS[i % 4], edge, 34090 + i, options)];
  });
}
