/** gather, unpack and linear: every weight format. */

import assert from "node:assert/strict";
import { linear } from "../../../src/ops/builders.ts";
import type { Graph, Tensor, Weight } from "../../../src/ops/graph.ts";
import type { ActivationMode } from "../../../src/ops/activation_mode.ts";
import type { Activation } from "../../../src/ops/op_table.ts";
import type { QuantizedLayout } from "../../../src/quantization/quantized_tensor.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { type ConformanceCase, floats, narrowed, widened, writeTo } from "./cases.ts";
import * as evaluate from "./evaluator.ts";
import { FORMATS, type TestFormat } from "./formats.ts";
import { PATTERNS, Random, randomValues } from "./random.ts";
import { roundedActivations } from "./rounded_activations.ts";
import { denseWeight, type TestWeight, TestWeights } from "./weights.ts";

/** Weight shapes; most columns are no multiple of a group. */
const WEIGHT_SHAPES: readonly (readonly [number, number])[] = [
  [1, 1],
  [3, 33],
  [5, 64],
  [17, 48],
  [7, 131],
  [4, 256],
];

/** All cases of gather. */
export function gatherCases(): ConformanceCase[] {
  return FORMATS.map((format, f) => {
    const random = new Random(20000 + f);
    const weight = format.make(random, 11, 48);
    const weights = new TestWeights();
    weights.add("table", weight);
    const ids = [0, 10, 3, 3, 7];
    return {
      name: `table of ${format.name}`,
      op: "gather",
      budget: "gather",
      inputs: { ids: HostTensor.fromInt32(Int32Array.from(ids)) },
      weights,
      build: (graph, inputs) =>
        writeTo(graph, [5, 48], f % 2 === 1, (output) => {
          graph.add("gather", {}, [inputs.ids, graph.weight("table", [11, 48])], output);
        }),
      expected: () => ids.flatMap((id) => [...weight.values.subarray(id * 48, (id + 1) * 48)]),
    };
  });
}

/** All cases of unpack. */
export function unpackCases(): ConformanceCase[] {
  return FORMATS.flatMap((format, f) =>
    WEIGHT_SHAPES.map(([rows, columns], s) => {
      const weight = format.make(new Random(21000 + 10 * f + s), rows, columns);
      const weights = new TestWeights();
      weights.add("w", weight);
      return {
        name: `${format.name} [${rows}, ${columns}]`,
        op: "unpack",
        budget: "unpack",
        inputs: {},
        weights,
        build: (graph) =>
          writeTo(graph, [rows, columns], s % 2 === 1, (output) => {
            graph.add("unpack", {}, [graph.weight("w", [rows, columns])], output);
          }),
        expected: () => weight.values,
      } satisfies ConformanceCase;
    })
  );
}

/** What follows the product of a linear case. */
export interface Ending {
  readonly activation: Activation;
  readonly bias: boolean;
  readonly gate: "none" | "row" | "rows";
  readonly residual: boolean;
}

/** All kinds of what may follow. */
export const ENDINGS: readonly Ending[] = [
  { activation: "identity", bias: false, gate: "none", residual: false },
  { activation: "identity", bias: true, gate: "none", residual: false },
  { activation: "silu", bias: true, gate: "none", residual: false },
  { activation: "gelu_tanh", bias: true, gate: "none", residual: true },
  { activation: "gelu_erf", bias: false, gate: "row", residual: false },
  { activation: "identity", bias: true, gate: "row", residual: true },
  { activation: "quick_gelu", bias: true, gate: "rows", residual: true },
  { activation: "relu", bias: false, gate: "rows", residual: false },
];

/** Sizes to pick from: m, n and k. */
export const ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33];
export const COLUMNS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 32, 33, 65];
export const DEPTHS = [
  1,
  3,
  4,
  7,
  8,
  15,
  16,
  31,
  32,
  33,
  63,
  64,
  65,
  96,
  127,
  128,
  129,
  131,
  256,
  300,
];

/** Cases of linear over dense and quantized weights with float activations. */
export function linearCases(): ConformanceCase[] {
  return FORMATS.flatMap((format, f) => {
    const random = new Random(22000 + 100 * f);
    const count = format.name === "float32" ? 96 : 16;
    return Array.from({ length: count }, (_, i) =>
      linearCase(format, ENDINGS[i % ENDINGS.length], {
        m: random.pick(ROWS),
        n: random.pick(COLUMNS),
        k: random.pick(DEPTHS),
      }, 23000 + 100 * f + i));
  });
}

/** Sizes around the tiles and blocks of kernels, and beyond a single one of them. */
export const TILE_EDGES: readonly LinearSize[] = [
  { m: 4, n: 300, k: 257 },
  { m: 5, n: 191, k: 511 },
  { m: 6, n: 192, k: 512 },
  { m: 7, n: 193, k: 513 },
  { m: 13, n: 385, k: 300 },
  { m: 67, n: 130, k: 515 },
  { m: 1, n: 259, k: 1031 },
  { m: 575, n: 7, k: 255 },
  { m: 576, n: 8, k: 256 },
  { m: 577, n: 9, k: 257 },
  { m: 1153, n: 3, k: 64 },
  { m: 771, n: 129, k: 5 },
  { m: 1541, n: 128, k: 6 },
];

/** Large linear layers, in a format of each kind. */
export function largeLinearCases(): ConformanceCase[] {
  return LARGE_FORMATS.flatMap((name, f) => {
    return TILE_EDGES.map((size, s) =>
      linearCase(formatOf(name), ENDINGS[(f + s) % ENDINGS.length], size, 28000 + 100 * f + s)
    );
  });
}

/** The format of a name. */
export function formatOf(name: string): TestFormat {
  return FORMATS.find((candidate) => candidate.name === name)!;
}

/** A format of each kind. */
export const LARGE_FORMATS: readonly string[] = [
  "float32",
  "bfloat16",
  "4-bit table, 64 f32",
  "8-bit integer, row f32 x 1/127",
  "4-bit integer, 32 coded, offset coded",
  "5-bit integer, 32 f16",
];

export interface LinearSize {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

function linearCase(
  format: TestFormat,
  ending: Ending,
  size: LinearSize,
  seed: number,
): ConformanceCase {
  const budget = format.kind === "dense" ? "linear/dense" : "linear/quantized";
  const options = { mode: { kind: "float" }, budget } as const;
  return buildLinearCase(format, ending, size, seed, options);
}

/** Cases of LLM.int8(): thresholds, outliers, zero rows, against the same rounding of activations. */
export function llmInt8Cases(): ConformanceCase[] {
  const cases = Array.from({ length: 48 }, (_, i) => {
    const random = new Random(30000 + i);
    const size = { m: random.pick(ROWS), n: random.pick(COLUMNS), k: random.pick(DEPTHS) };
    const threshold = random.pick([0, 6, 6, 2.5]);
    return llmInt8Case(ENDINGS[i % ENDINGS.length], size, 31000 + i, threshold);
  });
  const edges = TILE_EDGES.map((size, s) => llmInt8Case(ENDINGS[s % 4], size, 32000 + s, 6));
  return [...cases, ...edges, cancellingSumsCase()];
}

function llmInt8Case(ending: Ending, size: LinearSize, seed: number, threshold: number) {
  return buildLinearCase(ROW_INT8, ending, size, seed, {
    mode: { kind: "llm_int8", threshold },
    budget: "linear/llm_int8",
  });
}

const ROW_INT8 = FORMATS.find(({ name }) => name === "8-bit integer, row f32 x 1/127")!;

/** Sums that pass 2^24 and come back to 1: only integers keep the one. */
function cancellingSumsCase(): ConformanceCase {
  const half = 3000, k = 2 * half + 1;
  const x = new Float32Array(k).fill(1).with(half, 1 / 128);
  const layout = (ROW_INT8.make(new Random(1), 1, k).format as { layout: QuantizedLayout }).layout;
  const codes = new Uint8Array(k).fill(128 + 127, 0, half).fill(128 - 127, half).with(half, 129);
  const values = HostTensor.fromFloat32(Float32Array.of(127));
  const tensor = {
    shape: [1, k] as const,
    layout,
    codes,
    scale: { kind: "float", values } as const,
    offset: null,
  };
  const weights = new TestWeights({ kind: "llm_int8", threshold: 6 });
  weights.add("w", {
    shape: [1, k],
    format: { kind: "quantized", layout },
    stored: { kind: "quantized", tensor },
    values: Float64Array.from(codes, (code) => code - 128),
  });
  return {
    name: "sums beyond 2^24 that cancel to one",
    op: "linear",
    budget: "linear/llm_int8",
    inputs: { x: floats(x, [1, k]) },
    weights,
    build: (graph, inputs) => linear(inputs.x, graph.weight("w", [1, k])),
    // The activation codes are 127 but for a single 1 (127 / 128 rounded), the weights likewise.
    expected: () => [1 / 127],
  };
}

/** How a linear layer takes its operands. */
export interface LinearOptions {
  readonly mode: ActivationMode;
  readonly budget: ConformanceCase["budget"];
  /** What the product's operands are rounded to; as they are when absent. */
  readonly round?: (value: number) => number;
}

/** A case of linear over a weight of one format. */
export function buildLinearCase(
  format: TestFormat,
  ending: Ending,
  { m, n, k }: LinearSize,
  seed: number,
  { mode, budget, round }: LinearOptions,
): ConformanceCase {
  const random = new Random(seed);
  const weights = new TestWeights(mode);
  const weight = weights.add("w", format.make(random, n, k));
  const bias = weights.add("b", denseWeight(random, "bfloat16", [n]));
  const pattern = random.pick(PATTERNS);
  const margin = random.pick([0, 0, 3]); // x may be part of wider rows
  const isPart = random.uniform() < 0.3; // and so may be the output, the gate and the residual
  const operand = (values: Float32Array, rows: number) =>
    isPart ? widened(floats(values, [rows, n])) : floats(values, [rows, n]);
  const wide = randomValues(random, m * (k + margin), k + margin, pattern);
  if (mode.kind === "llm_int8" && mode.threshold > 0) {
    // The threshold itself is an outlier, of either sign; the next smaller float16 is none.
    const edges = [mode.threshold, -mode.threshold, mode.threshold * (1 - 2 ** -10)];
    for (let i = 0; i < wide.length; i += 29) wide[i] = random.pick(edges);
  }
  const x = Float64Array.from({ length: m * k }, (_, index) => {
    return wide[Math.floor(index / k) * (k + margin) + margin + index % k];
  });
  const gateRows = ending.gate === "row" ? 1 : m;
  const gate = randomValues(random, gateRows * n, n);
  const residual = randomValues(random, m * n, n);
  const how = mode.kind === "float" ? "" : `, ${JSON.stringify(mode)}`;
  return {
    name: `${format.name} m ${m} n ${n} k ${k}, ${describeEnding(ending)}, ${pattern}, ` +
      `margin ${margin}${isPart ? ", parts" : ""}${how}, seed ${seed}`,
    op: "linear",
    budget,
    magnitude: ending.activation === "identity" ? 0 : 1,
    inputs: {
      x: floats(wide, [m, k + margin]),
      ...ending.gate === "none" ? {} : { gate: operand(gate, gateRows) },
      ...ending.residual ? { residual: operand(residual, m) } : {},
    },
    weights,
    build: (graph, inputs) => {
      const b = ending.bias ? graph.weight("b", [n]) : null;
      const w = graph.weight("w", [n, k]);
      const x = inputs.x.slice(1, margin, k + margin);
      return captureLinear(graph, { ...inputs, x }, ending, w, b, isPart);
    },
    expected: () => {
      const seen = round ? x.map(round) : x;
      const values = round ? weight.values.map(round) : weight.values;
      const sums = expectedSums({ rows: m, columns: k, data: seen }, { ...weight, values }, mode);
      return evaluate.finish(sums, n, {
        activation: ending.activation,
        bias: ending.bias ? bias.values : undefined,
        gate: ending.gate === "none" ? undefined : { rows: gateRows, columns: n, data: gate },
        residual: ending.residual ? residual : undefined,
      });
    },
  };
}

/** x weight^T in float64, x as the mode sees it. */
function expectedSums(x: evaluate.Matrix, weight: TestWeight, mode: ActivationMode): Float64Array {
  if (mode.kind === "llm_int8") return evaluate.llmInt8(x, int8Rows(weight), mode.threshold);
  const dense = { rows: weight.shape[0], columns: weight.shape[1], data: weight.values };
  const seen = mode.kind === "quantized" ? roundedActivations(x, mode) : x;
  return evaluate.product(seen, dense);
}

/** A whole residual goes through a copy first, so that the op may write over it. */
function captureLinear(
  graph: Graph,
  inputs: Readonly<Record<string, Tensor>>,
  ending: Ending,
  weight: Weight,
  bias: Weight | null,
  isPart: boolean,
): Tensor {
  const { x, gate = null, residual = null } = inputs;
  const shape = [x.shape[0], weight.shape[0]];
  const seenGate = gate && isPart ? narrowed(gate) : gate;
  const seenResidual = residual && isPart
    ? narrowed(residual)
    : residual && graph.add("copy", {}, [residual], graph.allocate(shape));
  const attributes = { activation: ending.activation, activations: weight.activations };
  return writeTo(graph, shape, isPart, (output) => {
    graph.add("linear", attributes, [x, weight, bias, seenGate, seenResidual], output);
  });
}

/** The int8 codes of a row-wise quantized weight and their rows' absmax. */
function int8Rows({ stored }: TestWeight): evaluate.Int8Rows {
  assert.ok(stored.kind === "quantized" && stored.tensor.scale.kind === "float");
  const codes = Array.from(stored.tensor.codes, (code) => code - 128); // one byte each
  return { codes, rowAbsmax: stored.tensor.scale.values.toFloat32() };
}

function describeEnding({ activation, bias, gate, residual }: Ending): string {
  return [activation, bias && "bias", gate !== "none" && `gate ${gate}`, residual && "residual"]
    .filter(Boolean).join(" + ");
}
