/** unary, binary and reduce: every kind, odd sizes, strided rows, every broadcast. */

import {
  BINARY_KINDS,
  type OpAttributes,
  REDUCE_KINDS,
  UNARY_KINDS,
} from "../../../src/ops/op_table.ts";
import type { Tensor } from "../../../src/ops/graph.ts";
import { elementCount, type Shape } from "../../../src/tensor/shape.ts";
import { type ConformanceCase, floats, writeTo } from "./cases.ts";
import * as evaluate from "./evaluator.ts";
import { PATTERNS, Random, randomValues } from "./random.ts";
import * as virtual from "./virtual_array.ts";

const SHAPES: readonly Shape[] = [
  [1, 1],
  [1, 3],
  [2, 4],
  [3, 5],
  [7, 16],
  [5, 31],
  [3, 64],
  [2, 65],
  [13, 127],
  [131, 257],
];

/** All cases of unary. */
export function unaryCases(): ConformanceCase[] {
  return UNARY_KINDS.flatMap((kind, k) =>
    SHAPES.flatMap((shape, s) => [
      unaryCase(kind, shape, 3000 + 100 * k + s, "plain"),
      unaryCase(kind, shape, 3050 + 100 * k + s, "strided"),
      unaryCase(kind, shape, 3070 + 100 * k + s, "twice"),
    ])
  );
}

type Form = "plain" | "strided" | "twice";

/** "strided": rows within wider rows on both sides; "twice": the second op may write over its input. */
function unaryCase(
  kind: OpAttributes["unary"]["kind"],
  shape: Shape,
  seed: number,
  form: Form,
): ConformanceCase {
  const random = new Random(seed);
  const [rows, columns] = shape;
  const attributes = { kind, multiplier: 1.0986328125, addend: -0.30078125 };
  const width = form === "strided" ? columns + 3 : columns;
  const values = unaryInput(random, kind, rows * width, width);
  const used = virtual.toValues(
    virtual.slice(virtual.fromValues(values, [rows, width]), 1, width - columns, width),
  );
  return {
    name: `${kind} [${shape}], ${form}, seed ${seed}`,
    op: "unary",
    budget: "unary",
    magnitude: kind === "exp" || kind === "rsqrt" ? 0 : 1,
    inputs: { x: floats(values, [rows, width]) },
    build: (graph, { x }) => {
      const input = x.slice(1, width - columns, width);
      const first = graph.add("unary", attributes, [input], graph.allocate(shape));
      if (form === "plain") return first;
      const half = { kind: "affine", multiplier: 0.5, addend: 0 } as const;
      if (form === "twice") return graph.add("unary", half, [first], graph.allocate(shape));
      const wide = graph.allocate([rows, columns + 2]);
      graph.add("unary", attributes, [input], wide.slice(1, 1, columns + 1));
      return graph.add("copy", {}, [wide.slice(1, 1, columns + 1)], graph.allocate(shape));
    },
    expected: () =>
      used.map((x) => {
        const y = evaluate.unary(attributes, x);
        return form === "twice" ? y / 2 : y;
      }),
  };
}

function unaryInput(
  random: Random,
  kind: OpAttributes["unary"]["kind"],
  count: number,
  columns: number,
): Float32Array {
  const values = randomValues(random, count, columns, random.pick(PATTERNS));
  if (kind === "rsqrt") return values.map((x) => Math.abs(x) + 1e-6);
  if (kind === "exp") return values.map((x) => Math.max(-100, Math.min(20, x)));
  return values.map((x, i) => i % 3 === 0 ? 4 * x : x);
}

/** All cases of binary. */
export function binaryCases(): ConformanceCase[] {
  return BINARY_KINDS.flatMap((kind, k) =>
    BROADCASTS.flatMap((form, f) =>
      [0, 1, 2].map((i) => binaryCase(kind, form, 4000 + 1000 * k + 10 * f + i))
    )
  );
}

interface BroadcastForm {
  readonly name: string;
  readonly a: Shape;
  readonly b: Shape;
  /** Both operands are given transposed. */
  readonly transposed?: boolean;
}

const BROADCASTS: readonly BroadcastForm[] = [
  { name: "same shape", a: [5, 17], b: [5, 17] },
  { name: "one element", a: [1, 1], b: [1, 1] },
  { name: "repeated row", a: [7, 33], b: [1, 33] },
  { name: "repeated column", a: [7, 33], b: [7, 1] },
  { name: "repeated scalar", a: [3, 64], b: [1, 1] },
  { name: "outer product", a: [1, 9], b: [11, 1] },
  { name: "first operand repeated", a: [1, 13], b: [4, 13] },
  { name: "rank 3", a: [3, 4, 5], b: [3, 1, 5] },
  { name: "rank 4", a: [2, 3, 4, 5], b: [1, 3, 1, 5] },
  { name: "rank 4, both repeated", a: [2, 1, 4, 1], b: [1, 3, 1, 5] },
  { name: "vector on matrix", a: [6, 65], b: [65] },
  { name: "transposed", a: [9, 6], b: [9, 6], transposed: true },
];

function binaryCase(
  kind: OpAttributes["binary"]["kind"],
  form: BroadcastForm,
  seed: number,
): ConformanceCase {
  const random = new Random(seed);
  const pattern = random.pick(PATTERNS);
  const a = randomValues(random, elementCount(form.a), form.a.at(-1)!, pattern);
  let b = randomValues(random, elementCount(form.b), form.b.at(-1)!, pattern);
  if (kind === "divide") b = b.map((x) => Math.abs(x) < 1e-3 ? x + 0.125 : x);
  const axes = form.transposed ? [1, 0] : form.a.map((_, axis) => axis);
  const view = (values: Float32Array, shape: Shape) =>
    shape.length === axes.length
      ? virtual.permute(virtual.fromValues(values, shape), axes)
      : virtual.fromValues(values, shape);
  const left = view(a, form.a), right = view(b, form.b);
  const shape = left.shape.map((size, axis) => {
    const other = right.shape[axis - left.shape.length + right.shape.length] ?? 1;
    return Math.max(size, other);
  });
  return {
    name: `${kind}, ${form.name}, seed ${seed}`,
    op: "binary",
    budget: "binary",
    inputs: { a: floats(a, form.a), b: floats(b, form.b) },
    build: (graph, inputs) => {
      const seen = (tensor: Tensor) =>
        tensor.shape.length === axes.length ? tensor.permute(axes) : tensor;
      const operands = [seen(inputs.a), seen(inputs.b)].map((x) => x.broadcastTo(shape));
      return writeTo(graph, shape, seed % 2 === 1, (output) => {
        graph.add("binary", { kind }, operands, output);
      });
    },
    expected: () => {
      const x = virtual.toValues(virtual.broadcastTo(left, shape));
      const y = virtual.toValues(virtual.broadcastTo(right, shape));
      return x.map((value, i) => evaluate.binary(kind, value, y[i]));
    },
  };
}

/** All cases of reduce. */
export function reduceCases(): ConformanceCase[] {
  return REDUCE_KINDS.flatMap((kind, k) =>
    SHAPES.flatMap((shape, s) =>
      PATTERNS.map((pattern, p) => {
        const random = new Random(9000 + 1000 * k + 10 * s + p);
        const [rows, columns] = shape;
        const values = randomValues(random, rows * (columns + 2), columns + 2, pattern);
        const used = virtual.toValues(
          virtual.slice(virtual.fromValues(values, [rows, columns + 2]), 1, 1, columns + 1),
        );
        return {
          name: `${kind} [${shape}], ${pattern}`,
          op: "reduce",
          budget: `reduce/${kind}`,
          inputs: { x: floats(values, [rows, columns + 2]) },
          build: (graph, { x }) =>
            writeTo(graph, [rows, 1], p % 2 === 1, (output) => {
              graph.add("reduce", { kind }, [x.slice(1, 1, columns + 1)], output);
            }),
          expected: () =>
            Float64Array.from({ length: rows }, (_, row) =>
              evaluate.reduce(kind, Array.from(used.subarray(row * columns, (row + 1) * columns)))),
        } satisfies ConformanceCase;
      })
    )
  );
}
