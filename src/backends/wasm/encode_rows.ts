/** Encoders of the ops that work row by row: unary, reduce, gather, unpack. */

import { REDUCE_KINDS, UNARY_KINDS } from "../../ops/op_table.ts";
import type { StepEncoder } from "./encode.ts";
import { invalid } from "../operand_view.ts";
import { float } from "./tape_writer.ts";

/** unary: kind, rows, columns, input, output, multiplier, addend. */
export function encodeUnary(encoder: StepEncoder): void {
  if (encoder.step.op !== "unary") return;
  const { kind, multiplier, addend } = encoder.step.attributes;
  const output = encoder.outputMatrix();
  encoder.emit([
    UNARY_KINDS.indexOf(kind),
    output.rows,
    output.columns,
    ...encoder.rows(0, output.rows, output.columns),
    output.address,
    output.stride,
    float(multiplier),
    float(addend),
  ]);
}

/** reduce: kind, rows, columns, input, output. */
export function encodeReduce(encoder: StepEncoder): void {
  if (encoder.step.op !== "reduce") return;
  const input = encoder.matrix(0);
  const output = encoder.outputMatrix();
  if (output.rows !== input.rows || output.columns !== 1) {
    throw invalid("reduce gives one column", { input, output });
  }
  encoder.emit([
    REDUCE_KINDS.indexOf(encoder.step.attributes.kind),
    input.rows,
    input.columns,
    input.address,
    input.stride,
    output.address,
    output.stride,
  ]);
}

/** gather: count, ids, id stride, table, output. */
export function encodeGather(encoder: StepEncoder): void {
  const ids = encoder.view(0);
  const table = encoder.weight(1);
  const output = encoder.outputMatrix();
  const count = ids.shape.reduce((a, b) => a * b, 1);
  const axis = ids.shape.findIndex((size) => size === count);
  if (axis < 0 || output.rows !== count || output.columns !== table.columns) {
    throw invalid("gather shapes differ", { ids: ids.shape, output, table });
  }
  const stride = ids.strides[axis];
  encoder.emit([count, ids.address, stride, table.address, output.address, output.stride]);
}

/** unpack: weight, output. */
export function encodeUnpack(encoder: StepEncoder): void {
  const weight = encoder.weight(0);
  const output = encoder.outputMatrix();
  // A vector weight [n] has n rows of one column; its output is one row.
  if (output.rows * output.columns !== weight.rows * weight.columns) {
    throw invalid("unpack shapes differ", { output, weight });
  }
  const isVector = weight.columns === 1 && output.columns !== 1;
  if (!isVector && output.rows !== weight.rows) {
    throw invalid("unpack rows differ", { output, weight });
  }
  encoder.emit([weight.address, output.address, isVector ? 1 : output.stride]);
}
