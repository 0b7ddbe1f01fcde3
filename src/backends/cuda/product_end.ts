/** What ends a product: residual + gate * activation(sum + bias), resolved to addresses. */

import { type Activation, UNARY_KINDS } from "../../ops/op_table.ts";
import type { MatrixView } from "../operand_view.ts";
import { KERNEL_DTYPES } from "../weight_unit.ts";
import type { CudaStep } from "./cuda_step.ts";
import { OPERAND_BYTES } from "./matmul_precision.ts";
import { address, integers, type Parameter, rows } from "./parameters.ts";
import { floatRows, type PlainRows } from "./plain_rows.ts";

/** Which operand of a linear layer its bias is. */
export const BIAS = 2;

type RowOperand = readonly [address: number, stride: number];

/** Addresses are 0 for what is absent; a stride of 0 repeats a row. */
export interface ProductEnd {
  /** [rows, columns], float32 or of 16 bits. */
  readonly output: PlainRows;
  /** The output's place in the arena, where sums may lie whatever becomes of them. */
  readonly sums: MatrixView;
  readonly bias: number;
  /** The bias in 16 bits, as a library takes it for such results; 0 where there is none. */
  readonly narrowBias: number;
  readonly gate: RowOperand;
  readonly residual: RowOperand;
  readonly activation: Activation;
}

/** The end of a step whose operands have these numbers. */
export function productEnd(
  step: CudaStep,
  sums: MatrixView,
  operands: { bias: number; gate?: number; residual: number },
  activation: Activation,
): ProductEnd {
  const output = step.rounded.rowsWritten(step.index) ?? floatRows(sums);
  const optional = (operand: number): RowOperand => step.rows(operand, output.rows, output.columns);
  return {
    output,
    sums,
    bias: step.vector(operands.bias, output.columns),
    narrowBias: 0,
    gate: operands.gate === undefined ? [0, 0] : optional(operands.gate),
    residual: optional(operands.residual),
    activation,
  };
}

/** The end that adds nothing. */
export function plainEnd(output: PlainRows): ProductEnd {
  const none = [0, 0] as const;
  const rest = { bias: 0, narrowBias: 0, gate: none, residual: none } as const;
  return { output, sums: output, ...rest, activation: "identity" };
}

/** The end of the columns from `first` on. */
export function endFrom(end: ProductEnd, first: number, columns: number): ProductEnd {
  const shifted = (place: number, bytes = 4): number => place === 0 ? 0 : place + bytes * first;
  return {
    ...end,
    output: columnsOf(end.output, OPERAND_BYTES[end.output.type], first, columns),
    sums: columnsOf(end.sums, 4, first, columns),
    bias: shifted(end.bias),
    narrowBias: shifted(end.narrowBias, 2),
    gate: [shifted(end.gate[0]), end.gate[1]],
    residual: [shifted(end.residual[0]), end.residual[1]],
  };
}

function columnsOf<View extends MatrixView>(
  view: View,
  bytes: number,
  first: number,
  columns: number,
): View {
  return { ...view, address: view.address + bytes * first, columns };
}

/** The end of some rows from `first` on, of float32. */
export function endOfRows(end: ProductEnd, first: number, count: number): ProductEnd {
  const { output } = end;
  const shifted = (
    [place, stride]: RowOperand,
  ): RowOperand => [place === 0 ? 0 : place + 4 * first * stride, stride];
  const address = output.address + 4 * first * output.stride;
  return {
    ...end,
    output: { ...output, address, rows: count },
    sums: { ...output, address, rows: count },
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
    ...integers(KERNEL_DTYPES.indexOf(end.output.type), 0),
  ];
}
