/** Encoders of the ops that take any strides: copy, binary, matmul. */

import { BINARY_KINDS } from "../../ops/op_table.ts";
import type { StepEncoder } from "./encode.ts";
import { batchedView, broadcastView, commonAxes } from "../common_axes.ts";
import { invalid } from "../operand_view.ts";
import { float } from "./tape_writer.ts";

const COPY_RANK = 6;
const BINARY_RANK = 4;

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
  const a = broadcastView(encoder.view(0), output.shape);
  const b = broadcastView(encoder.view(1), output.shape);
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
  const [a, b, output] = [encoder.view(0), encoder.view(1), encoder.output()].map(batchedView);
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
