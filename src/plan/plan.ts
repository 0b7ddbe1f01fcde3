/**
 * A plan: what a model's forward becomes once it is captured, fused and placed. Ordered steps, every
 * intermediate at a known offset of one arena, every weight named. It is plain data.
 */

import type { DType } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import type { OpAttributes, OpName } from "../ops/op_table.ts";
import type { QuantizedLayout } from "../quantization/quantized_tensor.ts";

/** Types an intermediate may have. */
export type ActivationDType = "float32" | "int32";

/** How a weight is stored. */
export type WeightFormat =
  | { readonly kind: "dense"; readonly dtype: DType }
  | { readonly kind: "quantized"; readonly layout: QuantizedLayout };

/**
 * The order a backend gets a dense weight in. "rows": as in the checkpoint. "convolution": a
 * checkpoint's [out, in, kh, kw] brought to [out, kh, kw, in] (shape below is the brought one).
 */
export type WeightArrangement = "rows" | "convolution";

/** A weight the plan needs. */
export interface PlanWeight {
  /** The name in the checkpoint. */
  readonly name: string;
  /** The shape as the plan sees it. */
  readonly shape: Shape;
  readonly format: WeightFormat;
  readonly arrangement: WeightArrangement;
  /** Stored bytes: codes, scales, offsets and tables included. */
  readonly bytes: number;
}

/** A region of the arena; temporaries whose lives do not meet share bytes. */
export interface PlanBuffer {
  readonly role: "temporary" | "input" | "output" | "constant";
  /** Bytes, a multiple of 64. */
  readonly bytes: number;
  /** Byte offset in the arena, a multiple of 64. */
  readonly offset: number;
  /** Index of the first and last step that touch it (a plan-long life for other roles). */
  readonly firstStep: number;
  readonly lastStep: number;
}

/** An operand in the arena: a strided view of a buffer. */
export interface ActivationOperand {
  readonly kind: "activation";
  readonly buffer: number;
  readonly dtype: ActivationDType;
  /** Offset of the first element from the buffer's start, in elements. */
  readonly offset: number;
  readonly shape: Shape;
  /** In elements. */
  readonly strides: readonly number[];
}

/** An operand that is a weight, by its index in `Plan.weights`. */
export interface WeightOperand {
  readonly kind: "weight";
  readonly weight: number;
}

export type PlanOperand = ActivationOperand | WeightOperand;

/** One op with its operands. */
export type PlanStep = {
  [name in OpName]: {
    readonly op: name;
    readonly attributes: OpAttributes[name];
    /** In the order of the op table; null where an optional operand is absent. */
    readonly inputs: readonly (PlanOperand | null)[];
    readonly output: ActivationOperand;
  };
}[OpName];

/** A plan. */
export interface Plan {
  readonly name: string;
  readonly buffers: readonly PlanBuffer[];
  readonly steps: readonly PlanStep[];
  readonly weights: readonly PlanWeight[];
  readonly inputs: Readonly<Record<string, ActivationOperand>>;
  readonly outputs: Readonly<Record<string, ActivationOperand>>;
  readonly constants: readonly {
    readonly operand: ActivationOperand;
    readonly value: HostTensor;
  }[];
  /** Bytes of the arena. */
  readonly arenaBytes: number;
  /** Bytes of all weights. */
  readonly weightBytes: number;
  /** First 16 hex digits of the SHA-256 of the plan's text. */
  readonly hash: string;
}
