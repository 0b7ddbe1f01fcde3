/**
 * What a backend is: a place that holds weights and runs plans. It knows no model, no quantization
 * method and no pipeline; it sees ops, the one weight layout, and byte offsets.
 */

import type { HostTensor } from "../tensor/host_tensor.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import type { QuantizedTensor } from "../quantization/quantized_tensor.ts";
import type { Plan, PlanWeight } from "../plan/plan.ts";
import type { OpName } from "../ops/op_table.ts";

/** A weight as it is stored: dense or quantized. */
export type StoredWeight =
  | { readonly kind: "dense"; readonly tensor: HostTensor }
  | { readonly kind: "quantized"; readonly tensor: QuantizedTensor };

/** What belongs to a weight beside its elements or codes, which went another way. */
export type WeightRest =
  | { readonly kind: "dense" }
  | { readonly kind: "quantized"; readonly tensor: Omit<QuantizedTensor, "codes"> };

/** Gives weights by name, one at a time, so that no more than one is held beside the uploaded ones. */
export interface WeightSource {
  /** With `scratch`, parts of the weight may lie there: it is used up before that is reset. */
  read(weight: PlanWeight, scratch?: ScratchBytes): Promise<StoredWeight>;
  /**
   * Gives the elements (in the type of the plan) or codes of a weight to `put` as they come, with the byte that
   * they begin at and valid during the call, and then the rest; null, without a call, where a weight must be
   * read as a whole. Throws as `read`, maybe after calls.
   */
  stream?(
    weight: PlanWeight,
    put: (bytes: Uint8Array, start: number) => void,
    scratch?: ScratchBytes,
  ): Promise<WeightRest | null>;
  /** Whether reading a weight is work, of others than the caller's thread, so that it is worth beginning early. */
  isMade?(weight: PlanWeight): boolean;
}

/** What a backend can hold. */
export interface BackendLimits {
  /** Bytes of weights that may stay resident on the device; the rest streams in. */
  readonly residentWeightBytes: number;
  /** Bytes for the intermediates of one plan. */
  readonly arenaBytes: number;
}

/** Bytes in use now and the most so far, as the backend's own allocators counted them. */
export interface MemoryUse {
  /** Weights in their home (device or host), with scales and tables. */
  readonly weights: number;
  /** Intermediates, inputs, outputs and constants. */
  readonly arena: number;
  /** Per-worker scratch and streaming slots. */
  readonly scratch: number;
  /** The most of all of it at once. */
  readonly peak: number;
  /** The most at once in the memory of a device of its own, without what lies in the host's; absent without one. */
  readonly devicePeak?: number;
}

/** Weights held by a backend; programs of several sizes may share them. */
export interface WeightSet {
  readonly bytes: number;
  /** Frees them; programs over them must have been released. */
  release(): Promise<void>;
}

/** Options of loading weights. */
export interface LoadOptions {
  readonly signal?: AbortSignal;
  /** Whether the weights stay outside and stream in; by default when they do not fit beside others. */
  readonly streamed?: boolean;
  /** Called after each weight. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A plan ready to run. Inputs keep their values from run to run until written again. */
export interface Program {
  readonly plan: Plan;
  write(input: string, tensor: HostTensor): void;
  /**
   * Runs all steps. Aborting ends soon, at the latest after the steps that a device was already given, and
   * leaves the program usable.
   */
  run(options?: { signal?: AbortSignal }): Promise<void>;
  /** A copy of an output after `run`. */
  read(output: string): HostTensor;
  release(): void;
}

/** A native library in use. */
export interface NativeLibrary {
  /** Such as "cuDNN 9.20.0". */
  readonly name: string;
  /** Its path, or its name where the loader found it. */
  readonly file: string;
}

/** A backend. */
export interface Backend {
  readonly name: string;
  /** Native libraries that it uses beside a driver. */
  readonly libraries?: readonly NativeLibrary[];
  readonly limits: BackendLimits;
  /** Whether an optional (fused) op runs here; a plan for this backend decomposes the others. */
  supports(op: OpName): boolean;
  /**
   * Bytes the backend needs beside weights and arena to run this plan: scratch, and slots when its
   * weights are streamed, by default when they alone do not fit.
   */
  scratchBytes(plan: Plan, streamed?: boolean): number;
  /** Bytes that a plan's weights take here, where alignment or another type makes them more. */
  weightBytes?(plan: Plan): number;
  loadWeights(
    weights: readonly PlanWeight[],
    source: WeightSource,
    options?: LoadOptions,
  ): Promise<WeightSet>;
  compile(plan: Plan, weights: WeightSet): Promise<Program>;
  memory(): MemoryUse;
  /** Ends workers and frees everything; further calls throw `closed`. */
  close(): Promise<void>;
}
