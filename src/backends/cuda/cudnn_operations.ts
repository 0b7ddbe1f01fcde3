/** Attention and convolution as operations of a cuDNN graph. */

import type { CudnnDescriptors } from "./cudnn_descriptors.ts";
import {
  CUDNN_ATTRIBUTE,
  CUDNN_CROSS_CORRELATION,
  CUDNN_DATA,
  CUDNN_DESCRIPTOR,
  CUDNN_TYPE,
} from "./cudnn_symbols.ts";
import type {
  AttentionProblem,
  ConvolutionProblem,
  DnnProblem,
  PictureLayout,
} from "./dnn_problem.ts";
import type { OperandType } from "./matmul_precision.ts";

/** Identifiers of operands are 1, 2, ... in the order of `DnnAddresses`; that of attention's scale follows. */
export const SCALE_ID = 5;
/** What cuDNN's kernels want of addresses at most, in bytes. */
const ALIGNMENT = 16;

interface TensorLayout {
  readonly type: OperandType;
  readonly dimensions: readonly number[];
  readonly strides: readonly number[];
  readonly alignment?: number;
  /** The number itself is given at every execution, from the host's memory. */
  readonly isByValue?: boolean;
}

/** A finalized operation. */
export function describeOperation(descriptors: CudnnDescriptors, problem: DnnProblem): number {
  return problem.kind === "attention"
    ? describeAttention(descriptors, problem)
    : describeConvolution(descriptors, problem);
}

/** One operation of scaled dot product attention; tensors are [batch, heads, rows, size]. */
function describeAttention(descriptors: CudnnDescriptors, problem: AttentionProblem): number {
  const { type, heads, size, queries, keys } = problem;
  const rows = (id: number, count: number, stride = heads * size) =>
    describeTensor(descriptors, id, {
      type,
      dimensions: [1, heads, count, size],
      strides: [count * stride, size, stride, 1],
    });
  const one = [1, 1, 1, 1];
  const scalar = { type: "float32", dimensions: one, strides: one, isByValue: true } as const;
  const attribute = CUDNN_ATTRIBUTE.attentionForward;
  const operation = descriptors.make(CUDNN_DESCRIPTOR.operationAttentionForward);
  descriptors.setDescriptors(operation, attribute.q, rows(1, queries));
  descriptors.setDescriptors(operation, attribute.k, rows(2, keys));
  descriptors.setDescriptors(operation, attribute.v, rows(3, keys));
  descriptors.setDescriptors(operation, attribute.output, rows(4, queries, problem.outputStride));
  const scale = describeTensor(descriptors, SCALE_ID, scalar);
  descriptors.setDescriptors(operation, attribute.scale, scale);
  descriptors.finalize(operation);
  return operation;
}

/** Tensors are [batch, channels, height, width] whose channels lie together. */
function describeConvolution(descriptors: CudnnDescriptors, problem: ConvolutionProblem): number {
  const { type, x, y, kernel, alignments } = problem;
  const picture = (id: number, layout: PictureLayout, alignment: number) =>
    describeTensor(descriptors, id, { type, alignment, ...pictureDimensions(layout) });
  const weight = describeTensor(descriptors, 2, {
    type,
    alignment: alignments.weight,
    dimensions: [y.channels, x.channels, kernel, kernel],
    strides: [kernel * kernel * x.channels, 1, kernel * x.channels, x.channels],
  });
  const attribute = CUDNN_ATTRIBUTE.convolutionForward;
  const operation = descriptors.make(CUDNN_DESCRIPTOR.operationConvolutionForward);
  descriptors.setDescriptors(operation, attribute.x, picture(1, x, alignments.x));
  descriptors.setDescriptors(operation, attribute.w, weight);
  descriptors.setDescriptors(operation, attribute.y, picture(3, y, alignments.y));
  const geometry = describeGeometry(descriptors, problem);
  descriptors.setDescriptors(operation, attribute.convolution, geometry);
  descriptors.setFloat(operation, attribute.alpha, 1);
  descriptors.setFloat(operation, attribute.beta, 0);
  descriptors.finalize(operation);
  return operation;
}

/** Strides and paddings; sums are float32. */
function describeGeometry(
  descriptors: CudnnDescriptors,
  { stride, padding: [top, left, bottom, right] }: ConvolutionProblem,
): number {
  const attribute = CUDNN_ATTRIBUTE.convolution;
  const { dataType, convolutionMode } = CUDNN_TYPE;
  const geometry = descriptors.make(CUDNN_DESCRIPTOR.convolution);
  descriptors.setMember(geometry, attribute.computeType, dataType, CUDNN_DATA.float32);
  descriptors.setMember(geometry, attribute.mode, convolutionMode, CUDNN_CROSS_CORRELATION);
  descriptors.setIntegers(geometry, attribute.spatialDimensions, 2);
  descriptors.setIntegers(geometry, attribute.prePaddings, top, left);
  descriptors.setIntegers(geometry, attribute.postPaddings, bottom, right);
  descriptors.setIntegers(geometry, attribute.dilations, 1, 1);
  descriptors.setIntegers(geometry, attribute.strides, stride, stride);
  descriptors.finalize(geometry);
  return geometry;
}

function pictureDimensions({ height, width, channels, rowStride, pixelStride }: PictureLayout) {
  return {
    dimensions: [1, channels, height, width],
    strides: [height * rowStride, 1, rowStride, pixelStride],
  };
}

function describeTensor(descriptors: CudnnDescriptors, id: number, layout: TensorLayout): number {
  const { type, dimensions, strides, alignment = ALIGNMENT, isByValue } = layout;
  const attribute = CUDNN_ATTRIBUTE.tensor;
  const tensor = descriptors.make(CUDNN_DESCRIPTOR.tensor);
  descriptors.setMember(tensor, attribute.dataType, CUDNN_TYPE.dataType, CUDNN_DATA[type]);
  descriptors.setIntegers(tensor, attribute.dimensions, ...dimensions);
  descriptors.setIntegers(tensor, attribute.strides, ...strides);
  descriptors.setIntegers(tensor, attribute.uniqueId, id);
  descriptors.setIntegers(tensor, attribute.byteAlignment, Math.min(alignment, ALIGNMENT));
  if (isByValue) descriptors.setBoolean(tensor, attribute.isByValue, true);
  descriptors.finalize(tensor);
  return tensor;
}
