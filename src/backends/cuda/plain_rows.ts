/** Rows of numbers for a library, and what comes before and after it: narrowing, and the end of a product. */

import type { MatrixView } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import { OPERAND_BYTES, type OperandType } from "./matmul_precision.ts";
import { address, integers, rows } from "./parameters.ts";
import { endParameters, type ProductEnd } from "./product_end.ts";

/** A type of 16 bits. */
export type NarrowType = Exclude<OperandType, "float32">;

/** A matrix of numbers as they are, rows close together or apart. */
export interface PlainRows extends MatrixView {
  readonly type: OperandType;
}

/** A matrix of the arena. */
export function floatRows(matrix: MatrixView): PlainRows {
  return { ...matrix, type: "float32" };
}

/** Step scratch for a matrix of a type. */
export function scratchRows(
  step: CudaStep,
  [count, columns]: readonly [rows: number, columns: number],
  type: OperandType,
): PlainRows {
  const place = step.scratch(count * columns * OPERAND_BYTES[type]);
  return { address: place, stride: columns, rows: count, columns, type };
}

/** x rounded to 16 bits, close together at an address; a thread does eight values. */
export function launchNarrow(
  step: CudaStep,
  x: MatrixView,
  place: number,
  type: NarrowType,
): void {
  const eights = x.rows * Math.ceil(x.columns / 8);
  step.launch(`narrow_${type}`, [Math.ceil(eights / 256), 1, 1], [
    ...rows([x.address, x.stride]),
    address(place),
    ...integers(x.rows, x.columns),
  ]);
}

/** The end of a product whose sums a library made, in any type; such of the output's type may lie in it. */
export function launchEnd(step: CudaStep, sums: PlainRows, end: ProductEnd): void {
  const count = end.output.rows * end.output.columns;
  step.launchElements(`end_product_${sums.type}`, count, [
    ...rows([sums.address, sums.stride]),
    ...endParameters(end),
    ...integers(count | 0, end.output.columns),
  ]);
}
