/** conv2d: each output pixel is its patch of the input times the weight's rows. */

import type { OpAttributes } from "../../ops/op_table.ts";
import { dotProducts } from "./dot.ts";
import { epilogue } from "./epilogue.ts";
import { matrixRows } from "./linear.ts";
import type { StepContext } from "./step_context.ts";
import { contiguousView, floatData, matrixView, type StridedView } from "./strided_view.ts";

/** x [height, width, channels], weight [out, kernel, kernel, channels] -> output [oh, ow, out]. */
export function runConv2d(context: StepContext, attributes: OpAttributes["conv2d"]): void {
  const x = context.input(0);
  matrixView(x); // refuses views that no backend has to take
  const weight = context.input(1);
  const [outHeight, outWidth, outChannels] = context.output.shape;
  const patchSize = attributes.kernel ** 2 * x.shape[2];
  const rows = { ...weight, shape: [outChannels, patchSize], strides: [patchSize, 1] };
  const patches = contiguousView(context.scratchFloats(outWidth * patchSize), [
    outWidth,
    patchSize,
  ]);
  const write = epilogue({
    output: context.output,
    bias: context.optionalInput(2),
    gate: null,
    residual: context.optionalInput(3),
  }, attributes.activation);
  for (let row = 0; row < outHeight; row++) {
    gatherPatches(x, row, attributes, outWidth, floatData(patches));
    dotProducts(
      matrixRows(matrixView(patches)),
      matrixRows(matrixView(rows)),
      patchSize,
      (column, channel, sum) => write(row * outWidth + column, channel, sum),
    );
  }
}

/** Scratch bytes `runConv2d` counts. */
export function conv2dScratch(
  attributes: OpAttributes["conv2d"],
  channels: number,
  outWidth: number,
): number {
  return 4 * outWidth * attributes.kernel ** 2 * channels;
}

/** The patches [outWidth, kernel * kernel * channels] of one output row; padding reads as zero. */
function gatherPatches(
  x: StridedView,
  outRow: number,
  { kernel, stride, padding, upsample }: OpAttributes["conv2d"],
  outWidth: number,
  patches: Float32Array,
): void {
  const [height, width, channels] = x.shape;
  const [top, left] = padding;
  patches.fill(0);
  for (let tap = 0; tap < kernel * kernel; tap++) {
    const y = outRow * stride + Math.floor(tap / kernel) - top;
    if (y < 0 || y >= height * upsample) continue;
    const line = x.offset + Math.floor(y / upsample) * x.strides[0];
    for (let column = 0; column < outWidth; column++) {
      const along = column * stride + tap % kernel - left;
      if (along < 0 || along >= width * upsample) continue;
      const from = line + Math.floor(along / upsample) * x.strides[1];
      const to = (column * kernel * kernel + tap) * channels;
      patches.set(floatData(x).subarray(from, from + channels), to);
    }
  }
}
