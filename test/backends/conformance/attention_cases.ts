/** attention: head sizes, lengths, masks, biases, parts of a fused projection, large logits. */

import type { OpAttributes } from "../../../src/ops/op_table.ts";
import type { BudgetName } from "../error_budgets.ts";
import { type ConformanceCase, floats, type OperandRounding, writeTo } from "./cases.ts";
import * as evaluate from "./evaluator.ts";
import { type Pattern, Random, randomValues } from "./random.ts";
import { roundedHeads } from "./rounded_activations.ts";

interface AttentionForm {
  readonly heads: number;
  readonly d: number;
  readonly queries: number;
  readonly keys: number;
  readonly causal: boolean;
  readonly bias: boolean;
  /** q, k and v lie side by side in one matrix. */
  readonly fused: boolean;
  readonly pattern: Pattern;
  readonly qkDtype?: "int8";
}

/** What a library's attention in 16 bits covers. */
function isNarrow({ d, keys, causal, bias }: AttentionForm): boolean {
  return d % 8 === 0 && keys > 0 && !causal && !bias;
}

/** All cases of attention; with a rounding only those that it changes. */
export function attentionCases(rounding?: OperandRounding): ConformanceCase[] {
  const build = (form: AttentionForm, random: Random) =>
    rounding && !isNarrow(form) ? [] : [attentionCase(form, random, rounding)];
  const cases = Array.from({ length: 120 }, (_, i) => {
    const random = new Random(70000 + i);
    const queries = random.pick([1, 2, 3, 5, 8, 13, 16, 17, 31, 64, 65]);
    const fused = random.uniform() < 0.4;
    const causal = random.uniform() < 0.3;
    return build({
      heads: random.pick([1, 2, 3, 8]),
      d: random.pick([1, 2, 5, 8, 16, 32, 40, 64, 128]),
      queries,
      keys: fused || causal ? queries : random.pick([1, 2, 7, 16, 33, 64, 77, 130]),
      causal,
      bias: random.uniform() < 0.4,
      fused,
      pattern: random.pick(["normal", "normal", "zero rows", "special", "outliers"]),
    }, random);
  }).flat();
  const plain = { causal: false, bias: false, fused: false, pattern: "normal" } as const;
  const edges = ([
    // [heads, d, queries, keys]: around blocks of keys, wide single heads, many queries
    [2, 64, 9, 127],
    [2, 64, 9, 128],
    [2, 64, 9, 129],
    [1, 128, 193, 257],
    [1, 40, 300, 300],
    [1, 256, 17, 130],
    [1, 512, 33, 64],
    [1, 511, 5, 140],
    [1, 640, 7, 129],
  ] as const).flatMap(([heads, d, queries, keys], i) => [
    ...build({ ...plain, heads, d, queries, keys }, new Random(72000 + i)),
    ...build({ ...plain, heads, d, queries, keys, bias: true }, new Random(72100 + i)),
    ...build({ ...plain, heads, d, queries, keys: queries, causal: true }, new Random(72200)),
  ]);
  return [
    ...cases,
    ...edges,
    ...build({ ...plain, heads: 2, d: 8, queries: 3, keys: 0 }, new Random(72300)),
    largeLogitsCase(1, rounding),
    largeLogitsCase(-1, rounding),
    ...rounding ? [] : [1 / 64, 1 / 8, 1, 8].map(risingLogitsCase),
  ];
}

/** Logits that rise from key to key, by less and by more than a softmax over blocks of keys may let pass. */
function risingLogitsCase(slope: number): ConformanceCase {
  const [queries, keys] = [9, 400];
  const matrix = (rows: number, value: (row: number, column: number) => number) => ({
    rows,
    columns: 2,
    data: Float32Array.from({ length: 2 * rows }, (_, i) => value(i >> 1, i & 1)),
  });
  // Query 0 sees the logits fall instead, query 1 all equal.
  const q = matrix(queries, (row, column) => column === 0 ? slope * (row - 1) : 0);
  const k = matrix(keys, (row, column) => column === 0 ? row : 1);
  const v = matrix(keys, (row, column) => Math.cos(row + column));
  return plainCase(`logits that rise by ${slope}`, { q, k, v }, inHeads(1));
}

/** Logits of thousands, of one sign: exp overflows or vanishes unless the maximum is taken off first. */
function largeLogitsCase(sign: number, rounding?: OperandRounding): ConformanceCase {
  const random = new Random(71000 + sign);
  const [rows, columns] = [19, 16];
  const matrix = (scale: number) => {
    // Integers, so that float32 logits are exact and only the softmax is tried.
    const data = Float32Array.from({ length: rows * columns }, () => scale * random.integer(1, 9));
    return { rows, columns, data };
  };
  const [q, k, v] = [matrix(8 * sign), matrix(7), matrix(1)];
  return plainCase(
    `logits of ${sign > 0 ? "plus" : "minus"} thousands`,
    { q, k, v },
    inHeads(2),
    rounding,
  );
}

function inHeads(heads: number): OpAttributes["attention"] {
  return { heads, scale: 1, causal: false };
}

/** Attention of matrices as they are. */
export function plainCase(
  name: string,
  { q, k, v }: Record<"q" | "k" | "v", evaluate.Matrix>,
  attributes: OpAttributes["attention"],
  rounding?: OperandRounding,
): ConformanceCase {
  return {
    name,
    op: "attention",
    budget: rounding?.budget ?? "attention",
    inputs: Object.fromEntries(
      Object.entries({ q, k, v }).map(([name, m]) => [name, floats(m.data, [m.rows, m.columns])]),
    ),
    build: (graph, { q, k, v }) =>
      graph.add("attention", attributes, [q, k, v, null], graph.allocate(q.shape)),
    expected: () => evaluate.attention(q, k, v, attributes),
  };
}

export function attentionCase(
  form: AttentionForm,
  random: Random,
  rounding?: OperandRounding,
): ConformanceCase {
  const { heads, d, queries, keys, causal, bias, fused, pattern, qkDtype } = form;
  const exact = qkDtype === undefined ? "attention" : "attention/int8";
  const budget: BudgetName = rounding?.budget ?? exact;
  const columns = heads * d;
  // Outliers in v and, small enough that the softmax is not a mere maximum, in q.
  const logits = pattern === "outliers" ? "normal" : pattern;
  const special = (values: Float32Array) =>
    pattern === "special" ? values.map((x) => Math.max(-8, Math.min(8, x))) : values;
  const q = special(randomValues(random, queries * columns, columns, logits))
    .map((x) => pattern === "outliers" ? 20 * x : x);
  const k = special(randomValues(random, keys * columns, columns, logits));
  const v = special(randomValues(random, keys * columns, columns, pattern));
  const scores = randomValues(random, heads * queries * keys, keys).map((x) => 3 * x);
  const scale = Math.fround(1 / Math.sqrt(d));
  const matrix = (data: Float32Array, rows: number) => ({
    rows,
    columns,
    data: rounding ? Float64Array.from(data).map(rounding.round) : data,
  });
  return {
    name: JSON.stringify(form),
    op: "attention",
    budget,
    inputs: {
      ...fused
        ? { qkv: floats(sideBySide([q, k, v], queries, columns), [queries, 3 * columns]) }
        : {
          q: floats(q, [queries, columns]),
          k: floats(k, [keys, columns]),
          v: floats(v, [keys, columns]),
        },
      ...bias ? { bias: floats(scores, [heads, queries, keys]) } : {},
    },
    build: (graph, inputs) => {
      const operands = fused
        ? [0, 1, 2].map((part) => inputs.qkv.slice(1, part * columns, (part + 1) * columns))
        : [inputs.q, inputs.k, inputs.v];
      return writeTo(graph, [queries, columns], fused, (output) => {
        const attributes = { heads, scale, causal, ...qkDtype && { qkDtype } };
        graph.add("attention", attributes, [...operands, inputs.bias ?? null], output);
      });
    },
    expected: () => {
      const given = [matrix(q, queries), matrix(k, keys)] as const;
      const [seenQ, seenK] = qkDtype === undefined ? given : roundedHeads(given, heads);
      const attributes = { heads, scale, causal };
      return evaluate.attention(
        seenQ,
        seenK,
        matrix(v, keys),
        attributes,
        bias ? scores : undefined,
      );
    },
  };
}

function sideBySide(parts: readonly Float32Array[], rows: number, columns: number): number[] {
  return Array.from(
    { length: rows },
    (_, row) => parts.flatMap((part) => [...part.subarray(row * columns, (row + 1) * columns)]),
  ).flat();
}
