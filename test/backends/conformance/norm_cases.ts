/** norm and headNormRope: every kind, every optional operand, strided rows, in place. */

import type { Activation, OpAttributes } from "../../../src/ops/op_table.ts";
import type { Tensor } from "../../../src/ops/graph.ts";
import { type ConformanceCase, floats, narrowed, widened, writeTo } from "./cases.ts";
import * as evaluate from "./evaluator.ts";
import { PATTERNS, Random, randomValues } from "./random.ts";
import { denseWeight, TestWeights } from "./weights.ts";

/** Which optional operands a case has; scale and shift with one row or with all. */
interface NormForm {
  readonly weight: boolean;
  readonly bias: boolean;
  readonly modulation: "none" | "row" | "rows";
  readonly activation: Activation;
}

const FORMS: readonly NormForm[] = [
  { weight: false, bias: false, modulation: "none", activation: "identity" },
  { weight: true, bias: false, modulation: "none", activation: "identity" },
  { weight: true, bias: true, modulation: "none", activation: "silu" },
  { weight: false, bias: false, modulation: "row", activation: "identity" },
  { weight: true, bias: true, modulation: "rows", activation: "gelu_tanh" },
];

const SHAPES = [
  [1, 1],
  [2, 3],
  [5, 16],
  [3, 31],
  [4, 64],
  [7, 65],
  [2, 257],
  [33, 48],
  [9, 3072],
] as const;

/** [rows, columns, groups] of group norms. */
const GROUPED = [
  [1, 4, 2],
  [5, 6, 3],
  [16, 16, 4],
  [9, 32, 16],
  [35, 15, 5],
  [64, 64, 1],
  [1025, 32, 8],
] as const;

/** All cases of norm. */
export function normCases(): ConformanceCase[] {
  const byRow = (["layer", "rms"] as const).flatMap((kind, k) =>
    SHAPES.flatMap(([rows, columns], s) =>
      FORMS.flatMap((form, f) =>
        [1e-5, 1e-6].map((epsilon, e) =>
          normCase(
            { kind, epsilon, groups: 1, activation: form.activation },
            [rows, columns],
            form,
            60000 + 1000 * k + 100 * s + 10 * f + e,
          )
        )
      )
    )
  );
  const grouped = GROUPED.flatMap(([rows, columns, groups], s) =>
    FORMS.map((form, f) =>
      normCase(
        { kind: "group", epsilon: 1e-6, groups, activation: form.activation },
        [rows, columns],
        form,
        63000 + 10 * s + f,
      )
    )
  );
  return [...byRow, ...grouped];
}

function normCase(
  attributes: OpAttributes["norm"],
  [rows, columns]: readonly [number, number],
  form: NormForm,
  seed: number,
): ConformanceCase {
  const random = new Random(seed);
  const pattern = random.pick(PATTERNS);
  const margin = random.pick([0, 5]);
  const inPlace = margin === 0 && random.uniform() < 0.5;
  const wide = randomValues(random, rows * (columns + margin), columns + margin, pattern);
  const x = Float64Array.from({ length: rows * columns }, (_, index) => {
    return wide[Math.floor(index / columns) * (columns + margin) + index % columns];
  });
  const weights = new TestWeights();
  const weight = weights.add("w", denseWeight(random, "bfloat16", [columns]));
  const bias = weights.add("b", denseWeight(random, "float32", [columns]));
  const modulationRows = form.modulation === "row" ? 1 : rows;
  const [scale, shift] = [0, 1].map(() => randomValues(random, modulationRows * columns, columns));
  const asMatrix = (data: Float32Array) => ({ rows: modulationRows, columns, data });
  return {
    name: `${attributes.kind} [${rows}, ${columns}] groups ${attributes.groups}, ` +
      `epsilon ${attributes.epsilon}, ${JSON.stringify(form)}, ${pattern}, margin ${margin}` +
      `${inPlace ? ", in place" : ""}, seed ${seed}`,
    op: "norm",
    budget: "norm",
    magnitude: form.activation === "identity" ? 0 : 1,
    inputs: {
      x: floats(wide, [rows, columns + margin]),
      ...form.modulation === "none" ? {} : {
        scale: widened(floats(scale, [modulationRows, columns])),
        shift: widened(floats(shift, [modulationRows, columns])),
      },
    },
    weights,
    build: (graph, inputs) => {
      let input = inputs.x.slice(1, 0, columns);
      if (inPlace) input = graph.add("copy", {}, [input], graph.allocate([rows, columns]));
      const w = form.weight ? graph.weight("w", [columns]) : null;
      const b = form.bias ? graph.weight("b", [columns]) : null;
      const { scale, shift } = inputs;
      const modulation = [scale, shift].map((row) => row ? narrowed(row) : null);
      const output = writeTo(graph, [rows, columns], margin > 0, (target) => {
        graph.add("norm", attributes, [input, w, b, ...modulation], target);
      });
      return inPlace ? graph.add("copy", {}, [output], graph.allocate([rows, columns])) : output;
    },
    expected: () =>
      evaluate.norm({ rows, columns, data: x }, attributes, {
        weight: form.weight ? weight.values : undefined,
        bias: form.bias ? bias.values : undefined,
        scale: form.modulation === "none" ? undefined : asMatrix(scale),
        shift: form.modulation === "none" ? undefined : asMatrix(shift),
      }),
  };
}

/** All cases of headNormRope. */
export function headNormRopeCases(): ConformanceCase[] {
  return [[1, 1, 2], [3, 1, 8], [5, 2, 6], [4, 3, 32], [7, 2, 64], [2, 24, 128], [17, 4, 10]]
    .flatMap((sizes, s) =>
      [true, false].flatMap((rotates) =>
        PATTERNS.map((_, p) => {
          const seed = 65000 + 100 * s + 10 * p + (rotates ? 1 : 0);
          return headNormRopeCase(sizes, rotates, seed);
        })
      )
    );
}

function headNormRopeCase(
  [rows, heads, d]: readonly number[],
  rotates: boolean,
  seed: number,
): ConformanceCase {
  const random = new Random(seed);
  const pattern = random.pick(PATTERNS);
  const columns = heads * d;
  const parts = random.pick([1, 3]); // x may be one third of a fused projection
  const wide = randomValues(random, rows * columns * parts, columns * parts, pattern);
  const first = (parts - 1) * columns;
  const x = Float64Array.from({ length: rows * columns }, (_, index) => {
    return wide[Math.floor(index / columns) * columns * parts + first + index % columns];
  });
  const weights = new TestWeights();
  const weight = weights.add("w", denseWeight(random, "bfloat16", [d]));
  const angles = Array.from({ length: rows * d }, () => 6 * random.normal());
  const cos = Float32Array.from(angles, Math.cos), sin = Float32Array.from(angles, Math.sin);
  const epsilon = 1e-6;
  return {
    name: `[${rows}, ${heads} x ${d}]${rotates ? ", rotated" : ""}, part ${parts}, ${pattern}, ` +
      `seed ${seed}`,
    op: "headNormRope",
    budget: "headNormRope",
    inputs: {
      x: floats(wide, [rows, columns * parts]),
      ...rotates ? { cos: floats(cos, [rows, d]), sin: floats(sin, [rows, d]) } : {},
    },
    weights,
    build: (graph, inputs) => {
      const input: Tensor = inputs.x.slice(1, first, first + columns);
      const operands = [
        input,
        graph.weight("w", [d]),
        inputs.cos ?? null,
        inputs.sin ?? null,
      ];
      return writeTo(graph, [rows, columns], parts > 1, (output) => {
        graph.add("headNormRope", { heads, epsilon }, operands, output);
      });
    },
    expected: () => {
      const matrix = { rows, columns, data: x };
      return evaluate.headNormRope(
        matrix,
        weight.values,
        epsilon,
        rotates ? { cos, sin } : undefined,
      );
    },
  };
}
