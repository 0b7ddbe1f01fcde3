/** norm: layer, RMS and group normalisation, with the modulation and activation fused to it. */

import type { OpAttributes } from "../../ops/op_table.ts";
import { ACTIVATIONS } from "./functions.ts";
import type { StepContext } from "./step_context.ts";
import { type MatrixView, matrixView, rowsOf, vectorOf } from "./strided_view.ts";

/** x [rows, columns] -> output = act((norm(x) * weight + bias) * (1 + scale) + shift). */
export function runNorm(context: StepContext, attributes: OpAttributes["norm"]): void {
  const x = matrixView(context.input(0));
  const finish = finisher(context, x, attributes);
  if (attributes.kind === "group") {
    const width = x.columns / attributes.groups;
    for (let group = 0; group < attributes.groups; group++) {
      normalize(x, { row: 0, rows: x.rows, column: group * width, columns: width });
    }
  } else {
    for (let row = 0; row < x.rows; row++) {
      normalize(x, { row, rows: 1, column: 0, columns: x.columns });
    }
  }

  function normalize(x: MatrixView, block: Block): void {
    const mean = attributes.kind === "rms" ? 0 : sumOver(x, block, (value) => value) / size(block);
    const variance = sumOver(x, block, (value) => (value - mean) * (value - mean)) / size(block);
    const inverse = 1 / Math.sqrt(variance + attributes.epsilon);
    forEachIndex(x, block, (index, row, column) => {
      finish(row, column, (x.data[index] - mean) * inverse);
    });
  }
}

/** A rectangle of a matrix that is normalised together. */
interface Block {
  readonly row: number;
  readonly rows: number;
  readonly column: number;
  readonly columns: number;
}

function size(block: Block): number {
  return block.rows * block.columns;
}

function sumOver(x: MatrixView, block: Block, term: (value: number) => number): number {
  let sum = 0;
  forEachIndex(x, block, (index) => {
    sum += term(x.data[index]);
  });
  return sum;
}

function forEachIndex(
  x: MatrixView,
  block: Block,
  visit: (index: number, row: number, column: number) => void,
): void {
  for (let row = block.row; row < block.row + block.rows; row++) {
    const start = x.offset + row * x.rowStride;
    for (let column = block.column; column < block.column + block.columns; column++) {
      visit(start + column, row, column);
    }
  }
}

/** Writes one normalised value: weight, bias, modulation, activation. */
function finisher(
  context: StepContext,
  x: MatrixView,
  attributes: OpAttributes["norm"],
): (row: number, column: number, value: number) => void {
  const [weight, bias] = [1, 2].map((index) => {
    const view = context.optionalInput(index);
    return view && vectorOf(view, x.columns);
  });
  const [scale, shift] = [3, 4].map((index) => {
    const view = context.optionalInput(index);
    return view && rowsOf(view, x);
  });
  const output = matrixView(context.output);
  const activate = ACTIVATIONS[attributes.activation];
  return (row, column, normalized) => {
    let value = normalized;
    if (weight) value *= weight[column];
    if (bias) value += bias[column];
    if (scale) value *= 1 + scale.data[scale.offset + row * scale.rowStride + column];
    if (shift) value += shift.data[shift.offset + row * shift.rowStride + column];
    output.data[output.offset + row * output.rowStride + column] = activate(value);
  };
}
