/**
 * linear over int8 activations and weights that kernels may multiply as integers: groups that divide rows,
 * every width of code, zero points, offsets, tables of integers, and codes at the ends of their range,
 * where sums of 16 bits are fullest.
 */

import type { QuantizedActivations } from "../../../src/ops/activation_mode.ts";
import type { QuantizedLayout } from "../../../src/quantization/quantized_tensor.ts";
import { linear } from "../../../src/ops/builders.ts";
import { int8 } from "./activation_cases.ts";
import { type ConformanceCase, floats } from "./cases.ts";
import * as evaluate from "./evaluator.ts";
import {
  coded,
  FORMATS,
  integer,
  type PartialLayout,
  quantized,
  type TestFormat,
} from "./formats.ts";
import { Random } from "./random.ts";
import { roundedActivations } from "./rounded_activations.ts";
import { buildLinearCase, ENDINGS, type LinearSize, ROWS } from "./weight_cases.ts";
import { quantizedWeight, type TestWeight, TestWeights } from "./weights.ts";

const FLOAT = { kind: "float", dtype: "float32" } as const;
const ZERO = { kind: "integer", zeroPoint: 0 } as const;

/** Modes by what the kernels do differently: the lowest code, zeros, a zero known before. */
const MODES: readonly QuantizedActivations[] = [
  { ...int8({ levels: 127, least: 0, rounding: "ratio" }), lowest: -127 },
  int8({ levels: 127.5, least: 2 ** -23, rounding: "reciprocal" }),
  int8({ levels: 255, least: 2 ** -23, mapping: "asymmetric", rounding: "reciprocal" }),
  { ...int8({}), scale: { kind: "static", scale: 0.02, inverse: 50, zero: -31 } },
];

/** bitsandbytes' FP4 is whole in 192nds, e2m1 in halves. */
const FP4 = [0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4];
const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

/** Layouts of groups that divide rows. */
const LAYOUTS: readonly [name: string, layout: (columns: number) => PartialLayout][] = [
  ...[1, 2, 3, 4, 5, 6, 7, 8].flatMap((bits): [string, () => PartialLayout][] => [
    [`${bits}-bit, 32`, () => ({ ...integer(bits), groupSize: 32, scale: FLOAT })],
    [`${bits}-bit, 16 coded, offset coded`, () => ({
      bits,
      value: ZERO,
      groupSize: 16,
      scale: coded(ZERO, 4, 16, "float16"),
      offset: coded(ZERO, 4, 16, "float16"),
    })],
  ]),
  ["4-bit, 16", () => ({ ...integer(4), groupSize: 16, scale: FLOAT })],
  ["4-bit, 48", () => ({ ...integer(4), groupSize: 48, scale: FLOAT })],
  ["4-bit, 64", () => ({ ...integer(4), groupSize: 64, scale: FLOAT })],
  ["4-bit, row", (columns) => ({ ...integer(4), groupSize: columns, scale: FLOAT })],
  ["4-bit without a zero point, 64", () => ({ bits: 4, value: ZERO, groupSize: 64, scale: FLOAT })],
  ["6-bit without a zero point, row", (columns) => ({
    bits: 6,
    value: ZERO,
    groupSize: columns,
    scale: FLOAT,
  })],
  ["4-bit, 32, offset", () => ({ ...integer(4), groupSize: 32, scale: FLOAT, offset: FLOAT })],
  ["8-bit, row", (columns) => ({ ...integer(8), groupSize: columns, scale: FLOAT })],
  ["8-bit, two rows", (columns) => ({ ...integer(8), groupSize: 2 * columns, scale: FLOAT })],
  ["8-bit, row, offset", (columns) => ({
    ...integer(8),
    groupSize: columns,
    scale: FLOAT,
    offset: FLOAT,
  })],
  ["8-bit, 128", () => ({ ...integer(8), groupSize: 128, scale: FLOAT })],
  ["FP4, 64", () => ({ ...signedTable(FP4), groupSize: 64, scale: FLOAT })],
  ["e2m1, 16", () => ({ ...signedTable(E2M1), groupSize: 16, scale: FLOAT })],
  ["e2m1, 32", () => ({ ...signedTable(E2M1), groupSize: 32, scale: FLOAT })],
];

/** Depths of whole groups, around the blocks of kernels. */
const DEPTHS = [192, 384, 576, 1152];
const EDGES: readonly LinearSize[] = [
  { m: 385, n: 9, k: 576 },
  { m: 13, n: 201, k: 1152 },
];

/** All cases. */
export function integerProductCases(): ConformanceCase[] {
  const formats = [
    ...LAYOUTS.map(([name, layout]) => quantized(name, (_, __, columns) => layout(columns))),
    ...FORMATS.filter(({ name }) => name.startsWith("GGUF")),
  ];
  return [
    ...formats.flatMap((format, f) => MODES.map((mode, i) => randomCase(format, mode, f, i))),
    ...EDGES.flatMap((size, e) =>
      formats.filter((_, f) => f % 5 === e).map((format, f) =>
        buildLinearCase(format, ENDINGS[f % ENDINGS.length], size, 36000 + 100 * e + f, {
          mode: MODES[f % MODES.length],
          budget: "linear/quantized activations",
        })
      )
    ),
    ...LAYOUTS.flatMap(([name, layout]) =>
      MODES.map((mode) => extremeCase(name, layout(384), mode))
    ),
    ...MODES.map(roundedTableCase),
    ...LAYOUTS.filter(([name]) => ["4-bit, 32", "8-bit, row"].includes(name)).flatMap((layout) =>
      MODES.filter(({ scale }) => scale.kind === "dynamic").map((mode) =>
        nonFiniteCase(layout, mode)
      )
    ),
  ];
}

function signedTable(magnitudes: readonly number[]): Pick<QuantizedLayout, "bits" | "value"> {
  const table = Float32Array.from([...magnitudes, ...magnitudes.map((value) => -value)]);
  return { bits: 4, value: { kind: "table", table } };
}

function randomCase(format: TestFormat, mode: QuantizedActivations, f: number, i: number) {
  const random = new Random(35000 + 10 * f + i);
  const size = { m: random.pick(ROWS), n: random.integer(1, 40), k: random.pick(DEPTHS) };
  const options = { mode, budget: "linear/quantized activations" } as const;
  return buildLinearCase(
    format,
    ENDINGS[(f + i) % ENDINGS.length],
    size,
    35500 + 10 * f + i,
    options,
  );
}

/** Codes of x and of the weight at the ends of their ranges, in every combination of signs. */
function extremeCase(
  name: string,
  partial: PartialLayout,
  mode: QuantizedActivations,
): ConformanceCase {
  const [n, k] = [5, 384];
  const layout = { offset: null, ...partial };
  const most = 2 ** layout.bits - 1;
  const ends = [
    () => most,
    () => 0,
    (column: number) => column % 2 ? most : 0,
    (column: number) => column % 4 < 2 ? most : 0,
    (column: number) => column % 37 < 18 ? most : 0,
  ];
  const codeAt = (index: number) => ends[Math.floor(index / k)](index % k);
  const weight = quantizedWeight(new Random(37000), [n, k], layout, codeAt);
  const rows = [() => 1, () => -1, ...ends.slice(2).map((end) => (i: number) => end(i) ? 1 : -1)];
  const x = Float32Array.from(rows.flatMap((row) => Array.from({ length: k }, (_, i) => row(i))));
  return linearCase(`${name}, extremes, ${JSON.stringify(mode)}`, x, rows.length, weight, mode);
}

/** Rows of x with NaN of either sign or an infinity, in the middle and at the ends, between rows that have none. */
function nonFiniteCase(
  [name, layout]: (typeof LAYOUTS)[number],
  mode: QuantizedActivations,
): ConformanceCase {
  const [m, n, k] = [7, 9, 192];
  const random = new Random(39000);
  const weight = quantizedWeight(random, [n, k], { offset: null, ...layout(k) });
  const x = Float32Array.from({ length: m * k }, () => random.normal());
  const bits = new Uint32Array(x.buffer);
  bits[k + 5] = 0x7fc00000;
  bits[2 * k + 191] = 0xffc00000;
  bits[4 * k] = 0x7f800000;
  bits[5 * k + 18] = 0xff800000;
  return linearCase(`${name}, not finite, ${JSON.stringify(mode)}`, x, m, weight, mode);
}

/** The values of NF4, rounded to 16 bits where the mode allows it. */
function roundedTableCase(plain: QuantizedActivations): ConformanceCase {
  const [m, n, k] = [7, 33, 576];
  const mode = { ...plain, int16Tables: true };
  const random = new Random(38000);
  const table = Float32Array.from({ length: 16 }, (_, code) => Math.tanh((code - 7) / 5) / 0.93);
  const absmax = Math.max(...table.map(Math.abs));
  const rounded = table.map((value) => Math.round(value / absmax * 32767) * (absmax / 32767));
  const layout = { bits: 4, groupSize: 64, scale: FLOAT, offset: null } as const;
  const seen = quantizedWeight(random, [n, k], {
    ...layout,
    value: { kind: "table", table: rounded },
  });
  if (seen.stored.kind === "dense") throw new Error("a quantized weight was made");
  const kept = { ...layout, value: { kind: "table", table } } as const;
  const weight: TestWeight = {
    ...seen,
    format: { kind: "quantized", layout: kept },
    stored: { kind: "quantized", tensor: { ...seen.stored.tensor, layout: kept } },
  };
  const x = Float32Array.from({ length: m * k }, () => random.normal());
  return linearCase(`NF4 in 16 bits, ${JSON.stringify(mode)}`, x, m, weight, mode);
}

function linearCase(
  name: string,
  x: Float32Array<ArrayBuffer>,
  m: number,
  weight: TestWeight,
  mode: QuantizedActivations,
): ConformanceCase {
  const [n, k] = weight.shape;
  const weights = new TestWeights(mode);
  weights.add("w", weight);
  return {
    name,
    op: "linear",
    budget: "linear/quantized activations",
    inputs: { x: floats(x, [m, k]) },
    weights,
    build: (graph, inputs) => linear(inputs.x, graph.weight("w", [n, k])),
    expected: () =>
      evaluate.product(
        roundedActivations({ rows: m, columns: k, data: Float64Array.from(x) }, mode),
        { rows: n, columns: k, data: weight.values },
      ),
  };
}
