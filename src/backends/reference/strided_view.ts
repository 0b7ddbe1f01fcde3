/** Strided views of typed arrays: how every reference op sees its operands. */

import { HalftoneError } from "../../errors.ts";
import { contiguousStrides, type Shape } from "../../tensor/shape.ts";

/** Elements of an array, at `offset + sum(index[axis] * strides[axis])`. */
export interface StridedView {
  readonly data: Float32Array | Int32Array;
  /** In elements. */
  readonly offset: number;
  readonly shape: Shape;
  /** In elements. */
  readonly strides: readonly number[];
}

/** A view as a matrix [rows, columns] with contiguous columns. */
export interface MatrixView {
  readonly data: Float32Array;
  readonly offset: number;
  readonly rows: number;
  readonly columns: number;
  /** In elements; 0 repeats one row. */
  readonly rowStride: number;
}

/** A contiguous view of a whole array. */
export function contiguousView(data: Float32Array | Int32Array, shape: Shape): StridedView {
  return { data, offset: 0, shape, strides: contiguousStrides(shape) };
}

/** The float32 data of a view; throws plan_invalid on int32. */
export function floatData(view: StridedView): Float32Array {
  if (view.data instanceof Float32Array) return view.data;
  throw new HalftoneError("plan_invalid", "Cannot run a step: float32 operand expected", {
    found: "int32",
  });
}

/** Collapses the outer axes of a view to rows; throws plan_invalid where no one row stride exists. */
export function matrixView(view: StridedView): MatrixView {
  const { offset, shape, strides } = view;
  const columns = shape.at(-1) ?? 1;
  if (columns > 1 && strides.at(-1) !== 1) throw notAMatrix(view);
  const outer = shape.map((size, axis) => ({ size, stride: strides[axis] })).slice(0, -1);
  const rows = outer.reduce((product, axis) => product * axis.size, 1);
  const rowStride = rows === 0 ? 0 : collapsedStride(outer.filter((axis) => axis.size > 1), view);
  return { data: floatData(view), offset, rows, columns, rowStride };
}

/** A row operand [1 | rows, columns] against a matrix: one row is repeated. */
export function rowsOf(view: StridedView, { rows, columns }: MatrixView): MatrixView {
  const matrix = matrixView(view);
  if (matrix.columns === columns) {
    if (matrix.rows === rows) return matrix;
    if (matrix.rows === 1) return { ...matrix, rows, rowStride: 0 };
  }
  throw new HalftoneError("plan_invalid", "Cannot run a step: an operand has another shape", {
    found: `[${matrix.rows}, ${matrix.columns}]`,
    expected: `[1 or ${rows}, ${columns}]`,
  });
}

/** A vector operand of `length` values, as an array. */
export function vectorOf(view: StridedView, length: number): Float32Array {
  const count = view.shape.reduce((product, size) => product * size, 1);
  const isDense = count <= 1 || view.strides.at(-1) === 1;
  if (count === length && isDense && view.shape.at(-1) === count) {
    return floatData(view).subarray(view.offset, view.offset + count);
  }
  throw new HalftoneError("plan_invalid", "Cannot run a step: an operand has another shape", {
    found: view.shape,
    expected: [length],
  });
}

function collapsedStride(
  axes: readonly { size: number; stride: number }[],
  view: StridedView,
): number {
  const inner = axes.at(-1);
  if (inner === undefined) return 0;
  let expected = inner.stride;
  for (const axis of axes.toReversed()) {
    if (axis.stride !== expected) throw notAMatrix(view);
    expected *= axis.size;
  }
  return inner.stride;
}

function notAMatrix(view: StridedView): HalftoneError {
  return new HalftoneError("plan_invalid", "Cannot see an operand as a matrix", {
    found: { shape: view.shape, strides: view.strides },
    expected: "innermost stride 1 and outer axes that collapse to one row stride",
  });
}
