/** Encoders of copy, unary, binary, reduce, gather and unpack. */

import { BINARY_KINDS, REDUCE_KINDS, UNARY_KINDS } from "../../ops/op_table.ts";
import { broadcastView, commonAxes } from "../common_axes.ts";
import { type AddressedView, invalid } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { OperandType } from "./matmul_precision.ts";
import { address, float, integers, rows } from "./parameters.ts";

const COPY_RANK = 6;
const BINARY_RANK = 4;

/** copy: of views of one shape. */
export function encodeCopy(step: CudaStep): void {
  const output = step.output();
  const input = step.view(0);
  if (input.shape.join() !== output.shape.join()) {
    throw invalid("copy shapes differ", { input: input.shape, output: output.shape });
  }
  launchCopy(step, input, output);
}

/** copy: input, output, count, shape[6], input strides[6], output strides[6]; elements of 32 bits. */
export function launchCopy(step: CudaStep, input: AddressedView, output: AddressedView): void {
  const axes = commonAxes([input, output], output.shape, COPY_RANK);
  const count = axes.reduce((product, { size }) => product * size, 1);
  step.launchElements("copy", count, [
    address(input.address),
    address(output.address),
    ...integers(count | 0, 0),
    ...integers(...axes.map((axis) => axis.size)),
    ...integers(...axes.map((axis) => axis.strides[0]!)),
    ...integers(...axes.map((axis) => axis.strides[1]!)),
  ]);
}

/** unary: input, output, count, columns, output stride, kind, multiplier, addend. */
export function encodeUnary(step: CudaStep): void {
  if (step.step.op !== "unary") return;
  const { kind, multiplier, addend } = step.step.attributes;
  const output = step.outputMatrix();
  const count = output.rows * output.columns;
  step.launchElements("unary", count, [
    ...step.rowOperand(0, output.rows, output.columns),
    address(output.address),
    ...integers(count | 0, output.columns, output.stride, UNARY_KINDS.indexOf(kind)),
    float(multiplier),
    float(addend),
  ]);
}

/** binary: a, b, output, count, kind, shape[4], strides[4] of each. */
export function encodeBinary(step: CudaStep): void {
  if (step.step.op !== "binary") return;
  const output = step.output();
  const a = broadcastView(step.view(0), output.shape);
  const b = broadcastView(step.view(1), output.shape);
  const axes = commonAxes([a, b, output], output.shape, BINARY_RANK);
  const count = axes.reduce((product, { size }) => product * size, 1);
  step.launchElements("binary", count, [
    ...[a, b, output].map((view) => address(view.address)),
    ...integers(count | 0, BINARY_KINDS.indexOf(step.step.attributes.kind)),
    ...integers(...axes.map((axis) => axis.size)),
    ...[0, 1, 2].flatMap((view) => integers(...axes.map((axis) => axis.strides[view]!))),
  ]);
}

/** reduce: input, output, columns, output stride, kind; a block a row. */
export function encodeReduce(step: CudaStep): void {
  if (step.step.op !== "reduce") return;
  const input = step.matrix(0);
  const output = step.outputMatrix();
  if (output.rows !== input.rows || output.columns !== 1) {
    throw invalid("reduce gives one column", { input, output });
  }
  step.launch("reduce", [input.rows, 1, 1], [
    ...rows([input.address, input.stride]),
    address(output.address),
    ...integers(input.columns, output.stride, REDUCE_KINDS.indexOf(step.step.attributes.kind), 0),
  ]);
}

/** gather: ids, output, fault, table, id stride, output stride, step; a block an id. */
export function encodeGather(step: CudaStep): void {
  const ids = step.view(0);
  const table = step.weight(1);
  const output = step.outputMatrix();
  const count = ids.shape.reduce((a, b) => a * b, 1);
  const axis = ids.shape.findIndex((size) => size === count);
  if (axis < 0 || output.rows !== count || output.columns !== table.columns) {
    throw invalid("gather shapes differ", { ids: ids.shape, output, table });
  }
  step.launch("gather", [count, 1, 1], [
    address(ids.address),
    address(output.address),
    address(step.fault),
    ...table.descriptor,
    ...integers(ids.strides[axis]!, output.stride, step.index, 0),
  ]);
}

/** unpack: dequantizes all rows into the output. */
export function encodeUnpack(step: CudaStep): void {
  const weight = step.weight(0);
  const output = step.outputMatrix();
  if (output.rows * output.columns !== weight.rows * weight.columns) {
    throw invalid("unpack shapes differ", { output, weight });
  }
  // A vector weight [n] has n rows of one column; its output is one row.
  const isVector = weight.columns === 1 && output.columns !== 1;
  if (!isVector && output.rows !== weight.rows) {
    throw invalid("unpack rows differ", { output, weight });
  }
  const place = [output.address, isVector ? 1 : output.stride] as const;
  launchDequantize(step, weight, [0, weight.rows], place, "float32");
}

/** dequantize: output, weight, first row, rows, output stride; a thread does eight weights. */
export function launchDequantize(
  step: CudaStep,
  weight: ReturnType<CudaStep["weight"]>,
  [firstRow, count]: readonly [firstRow: number, rows: number],
  [output, stride]: readonly [address: number, stride: number],
  type: OperandType,
): void {
  // One more than the weights need: the first eight may begin in the row before.
  const eights = Math.ceil(count * weight.columns / 8) + 1;
  step.launch(`dequantize_${type}`, [Math.ceil(eights / 256), 1, 1], [
    address(output),
    ...weight.descriptor,
    ...integers(firstRow, count, stride, 0),
  ]);
}
