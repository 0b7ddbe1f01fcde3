/** Views brought to the axes that the kernels of strided ops take. */

import { type AddressedView, type Axis, invalid, mergeAxes } from "./operand_view.ts";

/** The axes of views of one shape, merged and filled with axes of size 1 in front to `rank`. */
export function commonAxes(
  views: readonly AddressedView[],
  shape: readonly number[],
  rank: number,
): Axis[] {
  const axes = mergeAxes(
    shape.map((size, axis) => ({ size, strides: views.map((view) => view.strides[axis]) })),
  );
  if (axes.length > rank) throw invalid("too many axes", { shape, rank });
  const unit = { size: 1, strides: views.map(() => 0) };
  return [...Array.from({ length: rank - axes.length }, () => unit), ...axes];
}

/** numpy broadcasting: the view with `shape`, repeated axes having stride 0. */
export function broadcastView(view: AddressedView, shape: readonly number[]): AddressedView {
  const missing = shape.length - view.shape.length;
  if (missing < 0) throw invalid("cannot broadcast to fewer axes", { from: view.shape, to: shape });
  const strides = shape.map((size, axis) => {
    const own = axis < missing ? 1 : view.shape[axis - missing];
    if (own === size) return axis < missing ? 0 : view.strides[axis - missing];
    if (own !== 1) throw invalid("shapes do not broadcast", { from: view.shape, to: shape });
    return 0;
  });
  return { address: view.address, shape, strides };
}

/** A view of rank 3: a missing batch axis is added, several are merged. */
export function batchedView(view: AddressedView): AddressedView {
  const inner = view.shape.length - 2;
  if (inner < 0) throw invalid("matmul takes matrices", view.shape);
  const outer = mergeAxes(
    view.shape.slice(0, inner).map((size, axis) => ({ size, strides: [view.strides[axis]] })),
  );
  if (outer.length > 1) throw invalid("matmul batch axes do not merge", view);
  const [{ size, strides: [stride] }] = outer.length ? outer : [{ size: 1, strides: [0] }];
  return {
    address: view.address,
    shape: [size, ...view.shape.slice(inner)],
    strides: [stride, ...view.strides.slice(inner)],
  };
}
