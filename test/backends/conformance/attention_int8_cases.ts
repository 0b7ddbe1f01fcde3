/** attention with queries and keys rounded to int8. */

import { attentionCase, plainCase } from "./attention_cases.ts";
import type { ConformanceCase } from "./cases.ts";
import { Random, randomValues } from "./random.ts";

/** Against the same rounding, and what it costs at all. */
export function attentionInt8Cases(): ConformanceCase[] {
  const plain = { causal: false, bias: false, fused: false, qkDtype: "int8" } as const;
  const random = new Random(73000);
  const odd = Array.from({ length: 60 }, (_, i) => {
    const queries = random.pick([1, 3, 5, 8, 13, 64, 65]);
    const fused = random.uniform() < 0.4;
    const causal = random.uniform() < 0.3;
    return attentionCase({
      ...plain,
      heads: random.pick([1, 2, 3, 8]),
      d: random.pick([1, 2, 5, 8, 16, 32, 40, 64, 128]),
      queries,
      keys: fused || causal ? queries : random.pick([1, 2, 7, 16, 33, 64, 77, 131]),
      causal,
      bias: random.uniform() < 0.3,
      fused,
      pattern: random.pick(["normal", "zero rows", "outliers"]),
    }, new Random(73100 + i));
  });
  const edges = ([
    // [heads, d, queries, keys]
    [2, 8, 3, 0],
    [2, 64, 9, 132],
    [2, 64, 9, 133],
    [1, 128, 193, 265],
    [1, 511, 5, 140],
    [1, 640, 7, 61],
  ] as const).map(([heads, d, queries, keys], i) =>
    attentionCase({ ...plain, heads, d, queries, keys, pattern: "normal" }, new Random(73200 + i))
  );
  return [...odd, ...edges, ...[8, 32, 128].map((d, i) => offsetKeysCase(d, 73300 + i))];
}

/** Keys far from zero in every feature, which would be lost to their own scale if the mean were not taken off. */
function offsetKeysCase(d: number, seed: number): ConformanceCase {
  const random = new Random(seed);
  const [rows, heads] = [40, 2];
  const columns = heads * d;
  const matrix = (scale: number, offset: (column: number) => number) => ({
    rows,
    columns,
    data: randomValues(random, rows * columns, columns)
      .map((x, i) => scale * x + offset(i % columns)),
  });
  const [q, k, v] = [
    matrix(1, () => 0),
    matrix(1, (column) => 200 * Math.cos(column)),
    matrix(1, () => 0),
  ];
  const attributes = { heads, scale: 1 / Math.sqrt(d), causal: false };
  const { name, ...rest } = plainCase(`keys far from zero, heads of ${d}`, { q, k, v }, attributes);
  const { build } = plainCase(name, { q, k, v }, { ...attributes, qkDtype: "int8" });
  return { ...rest, name, build, budget: "attention/int8 against float" };
}
