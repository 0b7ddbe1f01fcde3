/** How much scratch a plan will need, step by step: the same sums that the steps count as they run. */

import type { ActivationMode } from "../../ops/activation_mode.ts";
import type { Plan, PlanOperand, PlanStep } from "../../plan/plan.ts";
import { elementCount, type Shape } from "../../tensor/shape.ts";
import { roundedScratch } from "./activations.ts";
import { attentionScratch } from "./attention.ts";
import { conv2dScratch } from "./conv2d.ts";
import { headNormRopeScratch } from "./head_norm_rope.ts";
import { llmInt8Scratch } from "./llm_int8.ts";

/** The scratch bytes of the step that needs most. */
export function planScratch(plan: Plan): number {
  return plan.steps.reduce((most, step) => Math.max(most, stepScratch(plan, step)), 0);
}

function stepScratch(plan: Plan, step: PlanStep): number {
  if (step.op === "gather") return gatherScratch(plan, step.inputs[1], step.output.shape);
  const inputs = isLlmInt8(step) ? step.inputs.with(1, null) : step.inputs;
  const converted = inputs.reduce((sum, input) => sum + convertedBytes(plan, input), 0);
  return converted + ownScratch(plan, step);
}

function isLlmInt8(step: PlanStep): boolean {
  return step.op === "linear" && step.attributes.activations.kind === "llm_int8";
}

/** What the op itself needs beside converted weights. */
function ownScratch(plan: Plan, step: PlanStep): number {
  const shape = (index: number) => shapeOf(plan, step.inputs[index]);
  switch (step.op) {
    case "linear":
      return linearScratch(step.attributes.activations, elementCount(shape(0)), shape(1));
    case "conv2d":
      return conv2dScratch(step.attributes, shape(0)[2], step.output.shape[1]);
    case "attention": {
      const [queries, keys] = [0, 1].map((input) => elementCount(shape(input).slice(0, -1)));
      const width = (shape(0).at(-1) ?? 0) / step.attributes.heads;
      return attentionScratch(step.attributes, [queries, keys, width]);
    }
    case "headNormRope":
      return headNormRopeScratch(elementCount(shape(1)));
    default:
      return 0;
  }
}

/** Scratch of x [m, k] with `count` values and weight [n, k]. */
function linearScratch(mode: ActivationMode, count: number, [n, k]: Shape): number {
  if (mode.kind === "float") return 0;
  const m = count / k;
  return mode.kind === "llm_int8" ? llmInt8Scratch(m, k, n) : roundedScratch(m, k);
}

/** Bytes of a weight's float32 copy; nothing for what is read in place. */
function convertedBytes(plan: Plan, operand: PlanOperand | null): number {
  if (operand?.kind !== "weight") return 0;
  const { shape, format } = plan.weights[operand.weight];
  const isInPlace = format.kind === "dense" && format.dtype === "float32";
  return isInPlace ? 0 : elementCount(shape) * 4;
}

/** A table is converted a row at a time. */
function gatherScratch(plan: Plan, table: PlanOperand | null, output: Shape): number {
  return convertedBytes(plan, table) === 0 ? 0 : (output.at(-1) ?? 0) * 4;
}

function shapeOf(plan: Plan, operand: PlanOperand | null): Shape {
  if (operand === null) return [];
  return operand.kind === "activation" ? operand.shape : plan.weights[operand.weight].shape;
}
