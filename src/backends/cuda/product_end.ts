/** What ends a product: residual + gate * activation(sum + bias), resolved to addresses. */

import { type Activation, UNARY_KINDS } from "../../ops/op_table.ts";
import type { MatrixView } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import { address, integers, type Parameter, rows } from "./parameters.ts";

type RowOperand = readonly [address: number, stride: number];

/** Addresses are 0 for what is absent; a stride of 0 repeats a row. */
export interface ProductEnd {
  /** Float32 [rows, columns]. */
  readonly output: MatrixView;
  readonly bias: number;
  readonly gate: RowOperand;
  readonly residual: RowOperand;
  readonly activation: Activation;
}

/** The end of a step whose operands have these numbers. */
export function productEnd(
  step: CudaStep,
  output: MatrixView,
  operands: { bias: number; gate?: number; residual: number },
  activation: Activation,
): ProductEnd {
  const optional = (operand: number): RowOperand => step.rows(operand, output.rows, output.columns);
  return {
    output,
    bias: step.vector(operands.bias, output.columns),
    gate: operands.gate === undefined ? [0, 0] : optional(operands.gate),
    residual: optional(operands.residual),
    activation,
  };
}

/** The end that adds nothing. */
export function plainEnd(output: MatrixView): ProductEnd {
  return { output, bias: 0, gate: [0, 0], residual: [0, 0], activation: "identity" };
}

/** The end of the columns from `first` on. */
export function endFrom(end: ProductEnd, first: number, columns: number): ProductEnd {
  const shifted = (place: number): number => place === 0 ? 0 : place + 4 * first;
  return {
    ...end,
    output: { ...end.output, address: end.output.address + 4 * first, columns },
    bias: shifted(end.bias),
    gate: [shifted(end.gate[0]), end.gate[1]],
    residual: [shifted(end.residual[0]), end.residual[1]],
  };
}

/** The end of some rows from `first` on. */
export function endOfRows(end: ProductEnd, first: number, count: number): ProductEnd {
  const { output } = end;
  const shifted = (
    [place, stride]: RowOperand,
  ): RowOperand => [place === 0 ? 0 : place + 4 * first * stride, stride];
  const address = output.address + 4 * first * output.stride;
  return {
    ...end,
    output: { ...output, address, rows: count },
    gate: shifted(end.gate),
    residual: shifted(end.residual),
  };
}

/** The struct `Epilogue` of kernels-cuda/activation.h; without an output where results are not kept. */
export function endParameters(end: ProductEnd, isKept = true): Parameter[] {
  return [
    address(isKept ? end.output.address : 0),
    address(end.bias),
    ...rows(end.gate),
    ...rows(end.residual),
    ...integers(end.output.stride, UNARY_KINDS.indexOf(end.activation)),
  ];
}
