/** attention: softmax(scale * q k^T + bias) v per head, one query at a time. */

import { LLM_INT8_ROWS } from "../../ops/activation_mode.ts";
import type { OpAttributes } from "../../ops/op_table.ts";
import { exp } from "../../tensor/math.ts";
import { roundActivations, roundedScratch } from "./activations.ts";
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
    const [ownQ, ownK] = headsOf(context, [q, k], column, width, attributes);
    for (let query = 0; query < q.rows; query++) {
      const keys = attributes.causal ? Math.min(query + 1, k.rows) : k.rows;
      scoreKeys(ownQ, query, ownK, keys, attributes.scale, scores);
      if (bias) addBias(scores, keys, bias, head, query);
      softmax(scores, keys);
      mixValues(scores, keys, v, column, mixed);
      output.data.set(mixed, output.offset + query * output.rowStride + column);
    }
  }
}

/** Scratch bytes `runAttention` counts for `heads` of `width` features. */
export function attentionScratch(
  { heads, qkDtype }: OpAttributes["attention"],
  [queries, keys, width]: readonly [number, number, number],
): number {
  const rounded = qkDtype === undefined ? 0 : heads *
    (roundedScratch(queries, width) + roundedScratch(keys, width) + 4 * keys * width + 8 * width);
  return 8 * (keys + width) + rounded;
}

/** The columns of one head in q and k, rounded where the op says so. */
function headsOf(
  context: StepContext,
  matrices: readonly [MatrixView, MatrixView],
  column: number,
  width: number,
  { qkDtype }: OpAttributes["attention"],
): readonly [MatrixView, MatrixView] {
  const [q, k] = matrices
    .map((matrix) => ({ ...matrix, offset: matrix.offset + column, columns: width }));
  if (qkDtype === undefined) return [q, k];
  const centred = withoutMean(context, k);
  return [
    roundActivations(context, q, LLM_INT8_ROWS),
    roundActivations(context, centred, LLM_INT8_ROWS),
  ];
}

/** Rows less their mean: sums in float64, row after row; mean and differences in float32. */
function withoutMean(context: StepContext, x: MatrixView): MatrixView {
  const { rows, columns } = x;
  const data = context.scratchFloats(rows * columns);
  const mean = context.scratchDoubles(columns);
  const at = (row: number, column: number) => x.data[x.offset + row * x.rowStride + column];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) mean[column] += at(row, column);
  }
  mean.forEach((sum, column) => mean[column] = Math.fround(sum / rows));
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      data[row * columns + column] = at(row, column) - mean[column];
    }
  }
  return { data, offset: 0, rows, columns, rowStride: columns };
}

function scoreKeys(
  q: MatrixView,
  query: number,
  k: MatrixView,
  keys: number,
  scale: number,
  scores: Float64Array,
): void {
  const a = { ...vectorsOf(q), offset: q.offset + query * q.rowStride, count: 1 };
  const b = { ...vectorsOf(k), count: keys };
  dotProducts(a, b, q.columns, (_, key, sum) => {
    scores[key] = scale * sum;
  });
}

function vectorsOf({ data, offset, rows, rowStride }: MatrixView) {
  return { data, offset, count: rows, stride: rowStride, step: 1 };
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
