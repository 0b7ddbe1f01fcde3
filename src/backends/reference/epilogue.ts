/** What linear and conv2d do with each finished sum: output = residual + gate * act(sum + bias). */

import type { Activation } from "../../ops/op_table.ts";
import { ACTIVATIONS } from "./functions.ts";
import type { SumSink } from "./dot.ts";
import { type MatrixView, matrixView, rowsOf, type StridedView, vectorOf } from "./strided_view.ts";

/** The optional operands of an epilogue. */
export interface EpilogueOperands {
  readonly output: StridedView;
  readonly bias: StridedView | null;
  readonly gate: StridedView | null;
  readonly residual: StridedView | null;
}

/** The sink that finishes sums and writes them to the output as rows. */
export function epilogue(operands: EpilogueOperands, activation: Activation): SumSink {
  const output = matrixView(operands.output);
  const bias = operands.bias && vectorOf(operands.bias, output.columns);
  const gate = operands.gate && rowsOf(operands.gate, output);
  const residual = operands.residual && rowsOf(operands.residual, output);
  const apply = ACTIVATIONS[activation];
  return (row, column, sum) => {
    let value = apply(bias ? sum + bias[column] : sum);
    if (gate) value *= element(gate, row, column);
    if (residual) value += element(residual, row, column);
    output.data[output.offset + row * output.rowStride + column] = value;
  };
}

function element(matrix: MatrixView, row: number, column: number): number {
  return matrix.data[matrix.offset + row * matrix.rowStride + column];
}
