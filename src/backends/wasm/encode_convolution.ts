/** Encoder of conv2d: as one product of patches, or as Winograd's sixteen. */

import type { StepEncoder } from "./encode.ts";
import { epilogue } from "./encode_linear.ts";
import { checkConvolution } from "../step_checks.ts";
import { TAPE_OPCODE, type Word } from "./tape_writer.ts";

/** Products of a patch of 4 x 4. */
const PLACES = 16;
/** Input channels are transformed in fours; kernels-wasm/src/winograd.rs, LANES. */
const LANES = 4;
/** Output channels of a panel; kernels-wasm/src/gemm.rs, NR. */
const PANEL_CHANNELS = 8;
/** Output channels whose weights are transformed at once: what bounds the scratch, and a tile's sums. */
const PART_CHANNELS = 256;
/** From so many patches on it pays to transform the weights. */
const LEAST_PATCHES = 32;

/** conv2d: output and input sizes, x and its strides, kernel geometry, weight, epilogue. */
export function encodeConvolution(encoder: StepEncoder): void {
  if (encoder.step.op !== "conv2d") return;
  const { kernel, stride, padding, upsample, activation } = encoder.step.attributes;
  const x = encoder.view(0);
  const weight = encoder.weight(1);
  const output = encoder.output();
  checkConvolution(encoder.step.attributes, x, weight, output);
  const words = [
    ...output.shape,
    ...x.shape,
    x.address,
    x.strides[0],
    x.strides[1],
    kernel,
    stride,
    padding[0],
    padding[1],
    upsample === 2 ? 1 : 0,
    weight.address,
    ...epilogue(encoder, encoder.outputMatrix(), { bias: 2, residual: 3 }, activation),
  ];
  const isDense = kernel === 3 && stride === 1;
  if (isDense && paysInPatches(x.shape, output.shape)) {
    encodeWinograd(encoder, words, x.shape[2], output.shape[2]);
  } else encoder.emit(words);
}

function paysInPatches([, , channels]: readonly number[], [height, width]: readonly number[]) {
  return channels % LANES === 0 && Math.ceil(height / 2) * Math.ceil(width / 2) >= LEAST_PATCHES;
}

/** The words of conv2d, then where the transformed weights lie, and of which output channels they are. */
function encodeWinograd(
  encoder: StepEncoder,
  words: readonly Word[],
  channels: number,
  outChannels: number,
): void {
  const panels = Math.ceil(Math.min(outChannels, PART_CHANNELS) / PANEL_CHANNELS);
  const weights = encoder.scratch(PLACES * channels * panels * PANEL_CHANNELS * 4);
  for (let first = 0; first < outChannels; first += PART_CHANNELS) {
    const part = [...words, weights, first, Math.min(PART_CHANNELS, outChannels - first)];
    encoder.emit(part, TAPE_OPCODE.transformWeights);
    encoder.emit(part, TAPE_OPCODE.winograd);
  }
}
