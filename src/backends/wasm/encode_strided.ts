/** Encoders of the ops that take any strides: copy, binary, matmul. */

import { BINARY_KINDS } from "../../ops/op_table.ts";
import type { StepEncoder } from "./encode.ts";
import { type AddressedView, type Axis, invalid, mergeAxes } from "../operand_view.ts";
import { float } from "./tape_writer.ts";

const COPY_RANK = 6;
const BINARY_RANK = 4;

/** The axes of views of one shape, merged and filled with axes of size 1 in front to `rank`. */
function commonAxes(
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
function broadcast(view: AddressedView, shape: readonly number[]): AddressedView {
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

/** copy: shape[6], input, its strides[6], output, its strides[6]. */
export function encodeCopy(encoder: StepEncoder): void {
  const output = encoder.output();
  const input = encoder.view(0);
  if (input.shape.join() !== output.shape.join()) {
    throw invalid("copy shapes differ", { input: input.shape, output: output.shape });
  }
  const axes = commonAxes([input, output], output.shape, COPY_RANK);
  encoder.emit([
    ...axes.map((axis) => axis.size),
    input.address,
    ...axes.map((axis) => axis.strides[0]),
    output.address,
    ...axes.map((axis) => axis.strides[1]),
  ]);
}

/** binary: kind, shape[4], then address and strides[4] of a, b and output. */
export function encodeBinary(encoder: StepEncoder): void {
  if (encoder.step.op !== "binary") return;
  const output = encoder.output();
  const a = broadcast(encoder.view(0), output.shape);
  const b = broadcast(encoder.view(1), output.shape);
  const axes = commonAxes([a, b, output], output.shape, BINARY_RANK);
  encoder.emit([
    BINARY_KINDS.indexOf(encoder.step.attributes.kind),
    ...axes.map((axis) => axis.size),
    ...[a, b, output].flatMap((view, index) => [
      view.address,
      ...axes.map((axis) => axis.strides[index]),
    ]),
  ]);
}

/** matmul: batch, m, n, k, then address and strides[3] of a, b and output, scale. */
export function encodeMatmul(encoder: StepEncoder): void {
  if (encoder.step.op !== "matmul") return;
  const [a, b, output] = [encoder.view(0), encoder.view(1), encoder.output()].map(batched);
  const [batch, m, n] = output.shape;
  const k = a.shape[2];
  const expected = [[batch, m, k], [batch, n, k]].join();
  if ([a.shape, b.shape].join() !== expected) {
    throw invalid("matmul shapes differ", { a: a.shape, b: b.shape, output: output.shape });
  }
  encoder.emit([
    batch,
    m,
    n,
    k,
    ...[a, b, output].flatMap((view) => [view.address, ...view.strides]),
    float(encoder.step.attributes.scale),
  ]);
}

/** A view of rank 3: a missing batch axis is added, several are merged. */
function batched(view: AddressedView): AddressedView {
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
