/** Encodes matmul. */

import { batchedView } from "../common_axes.ts";
import { invalid } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import { address, float, integers } from "./parameters.ts";
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
  step.launch("matmul", tiles(m, n, batch), [
    ...[a!, b!, output!].flatMap((view) => [
      address(view.address),
      ...integers(...view.strides, 0),
    ]),
    ...integers(m, n, k),
    float(step.step.attributes.scale),
  ]);
}
