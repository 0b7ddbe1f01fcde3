/** attention: softmax(scale * q k^T + bias) v per head, one query at a time. */

import type { OpAttributes } from "../../ops/op_table.ts";
import { exp } from "../../tensor/math.ts";
import { dotProducts } from "./dot.ts";
import type { StepContext } from "./step_context.ts";
import { floatData, type MatrixView, matrixView, type StridedView } from "./strided_view.ts";

/** q [queries, heads * d], k, v [keys, heads * d], bias? [heads, queries, keys] -> output like q. */
export function runAttention(context: StepContext, attributes: OpAttributes["attention"]): void {
  const q = matrixView(context.input(0));
  const k = matrixView(context.input(1));
  const v = matrixView(context.input(2));
  const bias = context.optionalInput(3);
  const output = matrixView(context.output);
  const width = q.columns / attributes.heads;
  const scores = context.scratchDoubles(k.rows);
  const mixed = context.scratchDoubles(width);
  for (let head = 0; head < attributes.heads; head++) {
    const column = head * width;
    for (let query = 0; query < q.rows; query++) {
      const keys = attributes.causal ? Math.min(query + 1, k.rows) : k.rows;
      scoreKeys(q, query, k, column, width, keys, attributes.scale, scores);
      if (bias) addBias(scores, keys, bias, head, query);
      softmax(scores, keys);
      mixValues(scores, keys, v, column, mixed);
      output.data.set(mixed, output.offset + query * output.rowStride + column);
    }
  }
}

/** Scratch bytes `runAttention` counts. */
export function attentionScratch(keys: number, width: number): number {
  return 8 * (keys + width);
}

function scoreKeys(
  q: MatrixView,
  query: number,
  k: MatrixView,
  column: number,
  width: number,
  keys: number,
  scale: number,
  scores: Float64Array,
): void {
  const a = { ...vectorsAt(q, column), offset: q.offset + query * q.rowStride + column, count: 1 };
  const b = { ...vectorsAt(k, column), count: keys };
  dotProducts(a, b, width, (_, key, sum) => {
    scores[key] = scale * sum;
  });
}

function vectorsAt(matrix: MatrixView, column: number) {
  const { data, offset, rowStride } = matrix;
  return { data, offset: offset + column, count: matrix.rows, stride: rowStride, step: 1 };
}

function addBias(
  scores: Float64Array,
  keys: number,
  bias: StridedView,
  head: number,
  query: number,
): void {
  const data = floatData(bias);
  const start = bias.offset + head * bias.strides[0] + query * bias.strides[1];
  for (let key = 0; key < keys; key++) scores[key] += data[start + key * bias.strides[2]];
}

function softmax(scores: Float64Array, keys: number): void {
  let most = -Infinity;
  for (let key = 0; key < keys; key++) most = Math.max(most, scores[key]);
  let total = 0;
  for (let key = 0; key < keys; key++) total += scores[key] = exp(scores[key] - most);
  for (let key = 0; key < keys; key++) scores[key] /= total;
}

function mixValues(
  scores: Float64Array,
  keys: number,
  v: MatrixView,
  column: number,
  mixed: Float64Array,
): void {
  mixed.fill(0);
  for (let key = 0; key < keys; key++) {
    const share = scores[key];
    const start = v.offset + key * v.rowStride + column;
    for (let i = 0; i < mixed.length; i++) mixed[i] += share * v.data[start + i];
  }
}
