/** Encoders of matmul and conv2d. */

import { batchedView } from "../common_axes.ts";
import { invalid } from "../operand_view.ts";
import { checkConvolution } from "../step_checks.ts";
import type { CudaStep } from "./cuda_step.ts";
import { address, float, integers } from "./parameters.ts";
import { endParameters, productEnd } from "./product_end.ts";
import { tiles } from "./tiles.ts";

/** matmul: address and strides[3] of a, b and output, m, n, k, scale; a batch is a layer of blocks. */
export function encodeMatmul(step: CudaStep): void {
  if (step.step.op !== "matmul") return;
  const [a, b, output] = [step.view(0), step.view(1), step.output()].map(batchedView);
  const [batch, m, n] = output!.shape as [number, number, number];
  const k = a!.shape[2]!;
  if ([a!.shape, b!.shape].join() !== [[batch, m, k], [batch, n, k]].join()) {
    throw invalid("matmul shapes differ", { a: a!.shape, b: b!.shape, output: output!.shape });
  }
  const [across, down] = tiles(m, n);
  step.launch("matmul", [across, down, batch], [
    ...[a!, b!, output!].flatMap((view) => [
      address(view.address),
      ...integers(...view.strides, 0),
    ]),
    ...integers(m, n, k),
    float(step.step.attributes.scale),
  ]);
}

/** conv2d: x, epilogue, weight, sizes, strides of x, kernel geometry. */
export function encodeConv2d(step: CudaStep): void {
  if (step.step.op !== "conv2d") return;
  const { kernel, stride, padding, upsample, activation } = step.step.attributes;
  const x = step.view(0);
  const weight = step.weight(1);
  const output = step.output();
  checkConvolution(step.step.attributes, x, weight, output);
  const [outHeight, outWidth, outChannels] = output.shape as [number, number, number];
  const [height, width, channels] = x.shape as [number, number, number];
  step.launch("conv2d", tiles(outHeight * outWidth, outChannels), [
    address(x.address),
    ...endParameters(productEnd(step, step.outputMatrix(), { bias: 2, residual: 3 }, activation)),
    ...weight.descriptor,
    ...integers(outHeight, outWidth, outChannels, height, width, channels),
    ...integers(x.strides[0]!, x.strides[1]!, kernel, stride, padding[0], padding[1], upsample, 0),
  ]);
}
