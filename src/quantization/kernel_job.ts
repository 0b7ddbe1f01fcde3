/** What the kernels that quantize do: one job on a run of a matrix. */

import type { EncodeRule, FloatType } from "./encode_rule.ts";
import type { GgufQuantType } from "./gguf_quantizers.ts";
import { ggufTypeInfo } from "./gguf_types.ts";
import { packedBytes } from "./codes.ts";

/** The values of a run. */
export interface JobValues {
  readonly dtype: FloatType;
  /** Round the values to float16 before anything else. */
  readonly toFloat16?: boolean;
  /** How many. */
  readonly count: number;
}

/** How a run is divided: its first part may be the rest of a group. */
export interface JobGroups {
  /** Values of the run that belong to its first group, at most all. */
  readonly head: number;
  readonly groupSize: number;
}

/** The least values of the groups, then the largest, as float32. */
export interface RangesJob extends JobGroups {
  readonly kind: "ranges";
  readonly values: JobValues;
}

/** Codes, packed. The rule speaks of the run's groups only. */
export interface EncodeJob extends JobGroups {
  readonly kind: "encode";
  readonly values: JobValues;
  readonly rule: EncodeRule;
  readonly bits: number;
}

/** Blocks of GGUF; a run is whole blocks. */
export interface BlocksJob {
  readonly kind: "blocks";
  readonly values: JobValues;
  readonly type: GgufQuantType;
}

/** A job; plain data that workers can be sent. */
export type KernelJob = RangesJob | EncodeJob | BlocksJob;

/** Whoever does jobs: the WebAssembly module, or TypeScript where there is none. */
export interface QuantizeKernels {
  /**
   * Does a job on the bytes of its values and writes the result to the start of a buffer, which may be
   * that of the values. False when a value is not finite (or, for blocks, too large for float16 scales).
   */
  run(job: KernelJob, input: Uint8Array, result: ArrayBuffer): boolean;
}

/** No type of block reaches further with float16 scales; and the squares of larger values could overflow. */
export const LARGEST_BLOCK_VALUE: number = 2 ** 30;

/** Groups that a run touches. */
export function groupCount({ values, head, groupSize }: RangesJob | EncodeJob): number {
  return 1 + Math.ceil((values.count - head) / groupSize);
}

/** Bytes of the result. */
export function resultBytes(job: KernelJob): number {
  switch (job.kind) {
    case "ranges":
      return 8 * groupCount(job);
    case "encode":
      return packedBytes(job.values.count, job.bits);
    case "blocks": {
      const { elements, bytes } = ggufTypeInfo(job.type);
      return job.values.count / elements * bytes;
    }
  }
}

/** Bytes of the values. */
export function inputBytes({ values }: KernelJob): number {
  return values.count * (values.dtype === "float32" ? 4 : 2);
}
