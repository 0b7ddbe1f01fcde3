/** headNormRope: RMS norm over each head's values, then rotation of adjacent pairs. */

import type { OpAttributes } from "../../ops/op_table.ts";
import type { StepContext } from "./step_context.ts";
import { type MatrixView, matrixView, rowsOf, vectorOf } from "./strided_view.ts";

/** x [rows, heads * d], weight [d], cos? [rows, d], sin? [rows, d] -> output like x. */
export function runHeadNormRope(
  context: StepContext,
  attributes: OpAttributes["headNormRope"],
): void {
  const x = matrixView(context.input(0)), output = matrixView(context.output);
  const weight = vectorOf(context.input(1), x.columns / attributes.heads);
  const cos = context.optionalInput(2), sin = context.optionalInput(3);
  const perRow = { ...x, columns: weight.length };
  const angles = cos && sin ? { cos: rowsOf(cos, perRow), sin: rowsOf(sin, perRow) } : null;
  const normalized = context.scratchDoubles(weight.length);
  for (let row = 0; row < x.rows; row++) {
    for (let head = 0; head < attributes.heads; head++) {
      const column = head * weight.length;
      normalizeHead(x, row, column, weight, attributes.epsilon, normalized);
      if (angles) rotatePairs(normalized, angles, row);
      output.data.set(normalized, output.offset + row * output.rowStride + column);
    }
  }
}

/** Scratch bytes `runHeadNormRope` counts for heads of `width` values. */
export function headNormRopeScratch(width: number): number {
  return 8 * width;
}

function normalizeHead(
  x: MatrixView,
  row: number,
  column: number,
  weight: Float32Array,
  epsilon: number,
  normalized: Float64Array,
): void {
  const start = x.offset + row * x.rowStride + column;
  let squares = 0;
  for (let i = 0; i < weight.length; i++) squares += x.data[start + i] * x.data[start + i];
  const inverse = 1 / Math.sqrt(squares / weight.length + epsilon);
  for (let i = 0; i < weight.length; i++) normalized[i] = x.data[start + i] * inverse * weight[i];
}

/** (a, b) -> (a cos - b sin, b cos + a sin), each with its own angle's entry. */
function rotatePairs(
  values: Float64Array,
  { cos, sin }: { cos: MatrixView; sin: MatrixView },
  row: number,
): void {
  const cosStart = cos.offset + row * cos.rowStride, sinStart = sin.offset + row * sin.rowStride;
  for (let i = 0; i < values.length; i += 2) {
    const a = values[i], b = values[i + 1];
    values[i] = a * cos.data[cosStart + i] - b * sin.data[sinStart + i];
    values[i + 1] = b * cos.data[cosStart + i + 1] + a * sin.data[sinStart + i + 1];
  }
}
