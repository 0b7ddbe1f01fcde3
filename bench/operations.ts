/** How much arithmetic a plan holds. */

import type { Plan, PlanStep } from "../src/plan/plan.ts";
import { elementCount } from "../src/tensor/shape.ts";

/** Multiplications and additions of a plan by kind; what else it does weighs little. */
export interface Operations {
  readonly linear: number;
  readonly attention: number;
  readonly convolution: number;
}

/** Counts a plan's operations. */
export function operationsOf({ steps, weights }: Plan): Operations {
  const of = (op: PlanStep["op"]) =>
    steps.reduce((sum, step) => step.op === op ? sum + stepOperations(step, weights) : sum, 0);
  return { linear: of("linear"), attention: of("attention"), convolution: of("conv2d") };
}

/** All of a plan's operations. */
export function totalOperations(plan: Plan): number {
  const { linear, attention, convolution } = operationsOf(plan);
  return linear + attention + convolution;
}

function stepOperations({ op, inputs, output }: PlanStep, weights: Plan["weights"]): number {
  const [first, second] = inputs;
  if ((op === "linear" || op === "conv2d") && second?.kind === "weight") {
    return 2 * elementCount(output.shape) * elementCount(weights[second.weight]!.shape.slice(1));
  }
  if (op === "attention" && second?.kind === "activation" && first?.kind === "activation") {
    return 4 * elementCount(first.shape) * second.shape[0]!;
  }
  return 0;
}
