/** Attention and convolutions as a library is asked for them, apart from the addresses. */

import type { OperandType } from "./matmul_precision.ts";

/**
 * output = softmax(scale * q · kᵀ) · v for each head; q and output [queries, heads * size], k and v
 * [keys, heads * size], all of one type, rows of q, k and v close together.
 */
export interface AttentionProblem {
  readonly kind: "attention";
  readonly type: Exclude<OperandType, "float32">;
  readonly heads: number;
  readonly size: number;
  readonly queries: number;
  readonly keys: number;
  readonly scale: number;
  /** Of rows, in elements. */
  readonly outputStride: number;
  readonly workspaceBytes: number;
}

/** A picture [height, width, channels] whose channels lie together; strides in elements. */
export interface PictureLayout {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly rowStride: number;
  readonly pixelStride: number;
}

/** y = convolution of x by a weight [y.channels, kernel, kernel, x.channels], all of one type. */
export interface ConvolutionProblem {
  readonly kind: "convolution";
  readonly type: OperandType;
  /** Whether float32 operands may be rounded to TF32. */
  readonly tensorFloat32: boolean;
  readonly x: PictureLayout;
  readonly y: PictureLayout;
  readonly kernel: number;
  readonly stride: number;
  readonly padding: readonly [top: number, left: number, bottom: number, right: number];
  /** Powers of two that divide the addresses, in bytes. */
  readonly alignments: { readonly x: number; readonly weight: number; readonly y: number };
  readonly workspaceBytes: number;
}

/** What a library may be asked for. */
export type DnnProblem = AttentionProblem | ConvolutionProblem;

/** Where the parts lie: q, k, v, output or x, weight, y; and the workspace. */
export interface DnnAddresses {
  readonly operands: readonly [number, number, number, number?];
  readonly workspace: number;
}

/** A problem made ready, to be launched any number of times. */
export interface PreparedDnn {
  readonly problem: DnnProblem;
  /** Whether it ran before; the first run may load code and time engines, which no capture should meet. */
  isWarm: boolean;
}

/** What chooses how to compute attention and convolutions. */
export interface DnnLibrary {
  /** Whether this version has attention. */
  readonly hasAttention: boolean;
  /** The problem made ready, or null where the library cannot do it. */
  prepare(problem: DnnProblem): PreparedDnn | null;
}

/** How many numbers are multiplied by another. */
export function multiplications(problem: DnnProblem): number {
  if (problem.kind === "attention") {
    const { heads, size, queries, keys } = problem;
    return 2 * heads * size * queries * keys;
  }
  const { x, y, kernel } = problem;
  return y.height * y.width * y.channels * x.channels * kernel ** 2;
}

/** For errors. */
export function problemText(problem: DnnProblem): string {
  if (problem.kind === "attention") {
    const { heads, size, queries, keys, type } = problem;
    return `attention of ${heads} heads of ${size}, ${queries} queries, ${keys} keys in ${type}`;
  }
  const { x, y, kernel, type } = problem;
  const [from, to] = [x, y].map(({ height, width, channels }) =>
    `[${height}, ${width}, ${channels}]`
  );
  return `a convolution of ${from} by ${kernel}x${kernel} to ${to} in ${type}`;
}
