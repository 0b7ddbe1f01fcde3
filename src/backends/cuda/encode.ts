/** Encodes a plan as launches of kernels, step by step. */

import type { OpName } from "../../ops/op_table.ts";
import type { Plan } from "../../plan/plan.ts";
import { RoundedRegion } from "./rounded_region.ts";
import { ConstantPool } from "./constant_pool.ts";
import { CudaStep, type Launch, type Placement, type Products } from "./cuda_step.ts";
import {
  encodeBinary,
  encodeCopy,
  encodeGather,
  encodeReduce,
  encodeUnary,
  encodeUnpack,
} from "./encode_elements.ts";
import { encodeAttention } from "./encode_attention.ts";
import { encodeConv2d } from "./encode_convolution.ts";
import { encodeHeadNormRope, encodeNorm } from "./encode_fused.ts";
import { encodeLinear } from "./encode_linear.ts";
import { encodeMatmul } from "./encode_matmul.ts";

const ENCODERS: { readonly [name in OpName]: (step: CudaStep) => void } = {
  copy: encodeCopy,
  unary: encodeUnary,
  binary: encodeBinary,
  reduce: encodeReduce,
  gather: encodeGather,
  matmul: encodeMatmul,
  unpack: encodeUnpack,
  conv2d: encodeConv2d,
  linear: encodeLinear,
  norm: encodeNorm,
  attention: encodeAttention,
  headNormRope: encodeHeadNormRope,
};

/** The launches of each step, and the scratch of the step that needs most. */
export interface EncodedPlan {
  readonly steps: readonly (readonly Launch[])[];
  readonly stepScratchBytes: number;
}

/** Encodes all steps for a placement; throws `plan_invalid` for what the kernels cannot run. */
export function encodePlan(plan: Plan, placement: Placement): EncodedPlan {
  let stepScratchBytes = 0;
  const steps = plan.steps.map(({ op, output }, index) => {
    if (output.shape.includes(0)) return [];
    const step = new CudaStep(plan, index, placement);
    ENCODERS[op](step);
    stepScratchBytes = Math.max(stepScratchBytes, step.scratchBytes);
    return step.launches;
  });
  return { steps, stepScratchBytes };
}

/** What a plan needs beside its arena and weights, without any real addresses. */
export function measurePlan(
  plan: Plan,
  { precision, library, dnn }: Products,
  isStreamed: boolean,
): { stepScratchBytes: number; constantBytes: number; roundedBytes: number } {
  const constants = new ConstantPool(0);
  const weights = { unit: () => 0 };
  // What the libraries can do depends on addresses; what steps need does not.
  const multipliesFloat8 = library?.multipliesFloat8 ?? false;
  const products = {
    precision,
    library: library && { multipliesFloat8, prepare: () => null },
    dnn: dnn && { hasAttention: dnn.hasAttention, prepare: () => null },
  };
  const rounded = new RoundedRegion(plan, products, 0);
  const isExactIn = () => false;
  const nowhere = { arena: 0, stepScratch: 0, fault: 0, weights, isExactIn };
  const { stepScratchBytes } = encodePlan(plan, {
    ...nowhere,
    constants,
    products,
    rounded,
    hasSignedCodes: !isStreamed,
  });
  return { stepScratchBytes, constantBytes: constants.bytes, roundedBytes: rounded.bytes };
}
