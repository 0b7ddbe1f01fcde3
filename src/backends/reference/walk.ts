/** Walks several strided views of one shape together, a row (the last axis) at a time. */

import { HalftoneError } from "../../errors.ts";
import type { Shape } from "../../tensor/shape.ts";
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

/** A view repeated along axes of size 1, and along leading axes it lacks, as numpy broadcasts. */
export function broadcastView(view: StridedView, shape: Shape): StridedView {
  const missing = shape.length - view.shape.length;
  const strides = shape.map((size, axis) => {
    if (axis < missing) return 0;
    const own = view.shape[axis - missing];
    if (own === size) return view.strides[axis - missing];
    if (own === 1) return 0;
    throw new HalftoneError("plan_invalid", "Cannot broadcast an operand", {
      found: view.shape,
      expected: shape,
    });
  });
  return { ...view, shape, strides };
}
