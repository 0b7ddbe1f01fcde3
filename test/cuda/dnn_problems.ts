/** Problems for cuDNN: attention and convolutions of pictures whose pixels lie close together. */

import type { TimedDevice } from "../../src/backends/cuda/algorithm_choice.ts";
import type { AttentionProblem, ConvolutionProblem } from "../../src/backends/cuda/dnn_problem.ts";

/** A device on which nothing is timed. */
export const UNTIMED: TimedDevice = {
  name: "untimed",
  capability: 90,
  measureFrom: Infinity,
  milliseconds: () => 0,
};

const WORKSPACE_BYTES = 2 ** 25;

/** What of a convolution is not as usual: 3x3 in bfloat16, a pixel of zeros around the input. */
type ConvolutionOptions = Partial<
  Pick<
    ConvolutionProblem,
    "type" | "tensorFloat32" | "kernel" | "stride" | "padding" | "workspaceBytes"
  >
>;

/** A convolution of [height, width] pixels from some channels to others. */
export function convolutionProblem(
  [height, width]: readonly [height: number, width: number],
  [channels, outChannels]: readonly [from: number, to: number],
  options: ConvolutionOptions = {},
): ConvolutionProblem {
  const { kernel = 3, stride = 1, padding = [1, 1, 1, 1] } = options;
  const [top, left, bottom, right] = padding;
  const outputs = (size: number) => Math.floor((size - kernel) / stride) + 1;
  return {
    kind: "convolution",
    type: "bfloat16",
    tensorFloat32: false,
    alignments: { x: 256, weight: 256, y: 256 },
    workspaceBytes: WORKSPACE_BYTES,
    ...options,
    x: picture(height, width, channels),
    y: picture(outputs(height + top + bottom), outputs(width + left + right), outChannels),
    kernel,
    stride,
    padding,
  };
}

function picture(height: number, width: number, channels: number): ConvolutionProblem["x"] {
  return { height, width, channels, rowStride: width * channels, pixelStride: channels };
}

/** Attention of some heads. */
export function attentionProblem(
  { heads, size, queries, keys }: Pick<AttentionProblem, "heads" | "size" | "queries" | "keys">,
  type: AttentionProblem["type"],
): AttentionProblem {
  const scale = 0.125;
  const outputStride = heads * size;
  const places = { outputStride, workspaceBytes: WORKSPACE_BYTES };
  return { kind: "attention", type, heads, size, queries, keys, scale, ...places };
}
