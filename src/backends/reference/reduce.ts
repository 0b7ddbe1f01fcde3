/** reduce: sum, mean or maximum over the last axis. */

import type { OpAttributes } from "../../ops/op_table.ts";
import type { StepContext } from "./step_context.ts";
import { type MatrixView, matrixView } from "./strided_view.ts";

/** input [rows, columns] -> output [rows, 1]. */
export function runReduce(context: StepContext, attributes: OpAttributes["reduce"]): void {
  const input = matrixView(context.input(0)), output = matrixView(context.output);
  for (let row = 0; row < input.rows; row++) {
    output.data[output.offset + row * output.rowStride] = reduceRow(input, row, attributes.kind);
  }
}

function reduceRow(
  input: MatrixView,
  row: number,
  kind: OpAttributes["reduce"]["kind"],
): number {
  const start = input.offset + row * input.rowStride;
  const values = input.data.subarray(start, start + input.columns);
  if (kind === "max") return values.reduce((most, value) => Math.max(most, value), -Infinity);
  const sum = values.reduce((total, value) => total + value, 0);
  return kind === "sum" ? sum : sum / input.columns;
}
