/** Operands as kernels see them: addresses, rows and strides, checked against their buffer. */

import { HalftoneError } from "../errors.ts";
import type { ActivationOperand, Plan } from "../plan/plan.ts";

/** A view at a byte address; strides in elements of 4 bytes. */
export interface AddressedView {
  readonly address: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** A matrix of contiguous columns; a stride of 0 repeats one row. */
export interface MatrixView {
  readonly address: number;
  readonly rows: number;
  readonly columns: number;
  readonly stride: number;
}

/** The view of an operand in the arena; throws plan_invalid when it leaves its buffer. */
export function addressView(plan: Plan, operand: ActivationOperand, arena: number): AddressedView {
  const buffer = plan.buffers[operand.buffer];
  const { shape, strides, offset } = operand;
  const last = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis], offset);
  const isInside = buffer !== undefined && offset >= 0 && strides.every((stride) => stride >= 0) &&
    (shape.includes(0) || (last + 1) * 4 <= buffer.bytes) &&
    buffer.offset % 4 === 0 && buffer.offset + buffer.bytes <= plan.arenaBytes;
  if (!isInside) {
    throw invalid("an operand leaves its buffer", { operand, buffer });
  }
  return { address: arena + buffer.offset + offset * 4, shape, strides };
}

/** Collapses the outer axes to rows; throws plan_invalid where they are none. */
export function matrixView(view: AddressedView): MatrixView {
  const matrix = collapsed(view);
  if (typeof matrix === "string") throw invalid(matrix, view);
  return matrix;
}

/** The view as a matrix, or why it is none. */
export function collapsed(view: AddressedView): MatrixView | string {
  const columns = view.shape.at(-1) ?? 1;
  if (columns > 1 && view.strides.at(-1) !== 1) return "columns are not contiguous";
  const outer = mergeAxes(
    view.shape.slice(0, -1).map((size, axis) => ({ size, strides: [view.strides[axis]] })),
  );
  if (outer.length > 1) return "rows have no single stride";
  const [{ size, strides: [stride] }] = outer.length ? outer : [{ size: 1, strides: [0] }];
  return { address: view.address, rows: size, columns, stride };
}

/** A row operand [1 | rows, columns] as `rows` rows. */
export function repeatRows(matrix: MatrixView, rows: number): MatrixView {
  if (matrix.rows === rows) return matrix;
  if (matrix.rows === 1) return { ...matrix, rows, stride: 0 };
  throw invalid("row counts differ", { found: matrix.rows, expected: rows });
}

/** One axis under several views. */
export interface Axis {
  readonly size: number;
  /** Of each view. */
  readonly strides: readonly number[];
}

/** Joins neighbouring axes wherever every view steps evenly through both; drops axes of size 1. */
export function mergeAxes(axes: readonly Axis[]): Axis[] {
  const merged: Axis[] = [];
  for (const axis of axes) {
    if (axis.size === 1) continue;
    const last = merged.at(-1);
    const joins = last !== undefined &&
      last.strides.every((stride, view) => stride === axis.strides[view] * axis.size);
    if (joins) merged[merged.length - 1] = { size: last.size * axis.size, strides: axis.strides };
    else merged.push(axis);
  }
  return merged;
}

/** A plan that this backend cannot run. */
export function invalid(problem: string, found: unknown): HalftoneError {
  return new HalftoneError("plan_invalid", `Cannot encode a step: ${problem}`, { found });
}
