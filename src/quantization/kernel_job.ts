/** What the kernels that quantize do with a matrix, piece by piece. */

import type { EncodeRule, FloatType, LevelCodes } from "./encode_rule.ts";
import type { GgufQuantType } from "./gguf_quantizers.ts";
import { ggufTypeInfo } from "./gguf_types.ts";
import { packedBytes } from "./codes.ts";

/** Elements of a piece: whole blocks of every type, and whole bytes of codes; little enough for a cache. */
export const PIECE: number = 1 << 16;

/** How the values of a matrix are given. */
export interface JobValues {
  readonly dtype: FloatType;
  /** Round the values to float16 before anything else. */
  readonly toFloat16?: boolean;
}

/**
 * The least values of the groups, then the largest, as float32. Every piece has places of its own, so a
 * group that several pieces share is there as often: see `placesOf`.
 */
export interface RangesJob {
  readonly kind: "ranges";
  readonly values: JobValues;
  readonly groupSize: number;
}

/** Codes, packed. */
export interface EncodeJob {
  readonly kind: "encode";
  readonly values: JobValues;
  readonly groupSize: number;
  readonly rule: EncodeRule;
  readonly bits: number;
}

/**
 * Largest magnitudes of the groups, as float32, then the packed codes of values times the reciprocals of these, which
 * count as `least` at least. No piece begins within a group.
 */
export interface NormalizeJob {
  readonly kind: "normalize";
  readonly values: JobValues;
  readonly groupSize: number;
  /** Of the whole matrix. */
  readonly groups: number;
  readonly least: number;
  readonly code: LevelCodes;
  readonly bits: number;
}

/** Blocks of GGUF. */
export interface BlocksJob {
  readonly kind: "blocks";
  readonly values: JobValues;
  readonly type: GgufQuantType;
}

/**
 * One turn of half-quadratic quantization (see torchao_hqq.ts): the new zeros of all groups, then the error
 * of every value before the turn, as float32.
 */
export interface HqqJob {
  readonly kind: "hqq";
  readonly values: JobValues;
  /** 32, 64, 128 or 256. */
  readonly groupSize: number;
  /** Inverse scales and zeros, one per group. */
  readonly inverse: Float32Array;
  readonly zero: Float32Array;
  /** An error of size x shrinks by threshold * x ** HQQ_POWER. */
  readonly threshold: number;
}

/** The 0.7 of torchao's norm less 1. */
export const HQQ_POWER: number = 0.7 - 1;

/** A job; plain data that workers can be sent. */
export type KernelJob = RangesJob | EncodeJob | NormalizeJob | BlocksJob | HqqJob;

/** Whoever does jobs: the WebAssembly module, or TypeScript where there is none. */
export interface QuantizeKernels {
  /**
   * Does one piece of a job: its values begin at element `start` of the matrix, a multiple of `PIECE`, and
   * what is made of them goes to its place in the result of the whole matrix. False when a value is not
   * finite (or, for blocks, too large for float16 scales).
   */
  run(job: KernelJob, start: number, values: Uint8Array, result: Uint8Array): boolean;
}

/** No type of block reaches further with float16 scales; and the squares of larger values could overflow. */
export const LARGEST_BLOCK_VALUE: number = 2 ** 30;

/** The groups that a run of elements touches. */
export interface GroupsOfRun {
  readonly first: number;
  readonly count: number;
  /** Elements from the start of the run to the end of its first group; may be more than the run has. */
  readonly head: number;
}

/** The groups of a run. */
export function groupsOf(groupSize: number, start: number, count: number): GroupsOfRun {
  const first = Math.floor(start / groupSize);
  const last = Math.floor((start + count - 1) / groupSize);
  return { first, count: last - first + 1, head: groupSize - start % groupSize };
}

/** Where a piece has its places among ranges: one more for every piece before it. */
export function placesOf({ first }: GroupsOfRun, start: number): number {
  return first + Math.floor(start / PIECE);
}

/** Places for the ranges of a matrix. */
export function placeCount(groupSize: number, size: number): number {
  return Math.ceil(size / groupSize) + Math.ceil(size / PIECE);
}

/** Bytes of the result for a matrix of `size` elements. */
export function resultBytes(job: KernelJob, size: number): number {
  switch (job.kind) {
    case "ranges":
      return 8 * placeCount(job.groupSize, size);
    case "encode":
      return packedBytes(size, job.bits);
    case "normalize":
      return 4 * job.groups + packedBytes(size, job.bits);
    case "blocks": {
      const { elements, bytes } = ggufTypeInfo(job.type);
      return size / elements * bytes;
    }
    case "hqq":
      return 4 * (size / job.groupSize + size);
  }
}

/** Bytes of a value. */
export function valueBytes({ dtype }: JobValues): number {
  return dtype === "float32" ? 4 : 2;
}
