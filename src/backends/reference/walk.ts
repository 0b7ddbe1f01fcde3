/** Walks several strided views of one shape together, a row (the last axis) at a time. */

import { HalftoneError } from "../../errors.ts";
import { sameShape, type Shape } from "../../tensor/shape.ts";
import type { StridedView } from "./strided_view.ts";

/** Gets the row's length, and for each view the index of its first element and its step. */
export type RowVisitor = (
  length: number,
  starts: readonly number[],
  steps: readonly number[],
) => void;

/** Calls `visit` for each row of `shape`, in row-major order. */
export function forEachRow(
  shape: Shape,
  views: readonly Pick<StridedView, "offset" | "strides">[],
  visit: RowVisitor,
): void {
  const length = shape.at(-1) ?? 1;
  const steps = views.map((view) => view.strides.at(-1) ?? 0);
  descend(0, views.map((view) => view.offset));

  function descend(axis: number, starts: readonly number[]): void {
    if (axis >= shape.length - 1) return visit(length, starts, steps);
    for (let index = 0; index < shape[axis]; index++) {
      descend(axis + 1, starts.map((start, view) => start + index * views[view].strides[axis]));
    }
  }
}

/** Throws plan_invalid when a view is not of `shape`; repeats are views with stride 0. */
export function checkShape(view: StridedView, shape: Shape): void {
  if (sameShape(view.shape, shape)) return;
  throw new HalftoneError("plan_invalid", "Cannot run a step: an operand has another shape", {
    found: view.shape,
    expected: shape,
  });
}
