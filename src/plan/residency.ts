/**
 * Residency: which weights must be on the device for which steps. A plan whose weights do not fit is
 * cut into segments, consecutive steps whose weights fill one slot; while one segment runs, the
 * weights of the next are brought into the other slot.
 */

import { HalftoneError } from "../errors.ts";
import { ALIGNMENT } from "./place.ts";
import type { Plan } from "./plan.ts";

/** Consecutive steps and the weights they need. */
export interface Segment {
  readonly firstStep: number;
  /** Inclusive. */
  readonly lastStep: number;
  /** Indices into `plan.weights`, each once, in the order of use. */
  readonly weights: readonly number[];
  /** Bytes of those weights, each rounded up to the alignment. */
  readonly bytes: number;
}

/** Bytes a weight takes in a slot. */
export function slotBytesOf(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** The weights each step names, each once. */
export function weightsOfStep(plan: Plan, step: number): number[] {
  const weights = plan.steps[step].inputs
    .flatMap((input) => input?.kind === "weight" ? [input.weight] : []);
  return [...new Set(weights)];
}

/**
 * Cuts a plan into segments whose weights fit `slotBytes`. Weights in `resident` cost nothing.
 * Throws `out_of_memory` when one step alone needs more.
 */
export function segmentPlan(
  plan: Plan,
  slotBytes: number,
  resident: ReadonlySet<number> = new Set(),
): Segment[] {
  const segments: Segment[] = [];
  let firstStep = 0;
  let weights = new Set<number>();
  let bytes = 0;
  const close = (lastStep: number) => {
    if (lastStep >= firstStep) segments.push({ firstStep, lastStep, weights: [...weights], bytes });
    firstStep = lastStep + 1;
    weights = new Set();
    bytes = 0;
  };
  for (let step = 0; step < plan.steps.length; step++) {
    const needed = weightsOfStep(plan, step).filter((weight) => !resident.has(weight));
    const own = sum(plan, needed);
    if (own > slotBytes) throw tooLarge(plan, step, own, slotBytes);
    if (bytes + sum(plan, needed.filter((weight) => !weights.has(weight))) > slotBytes) {
      close(step - 1);
    }
    for (const weight of needed) weights.add(weight);
    bytes = sum(plan, [...weights]);
  }
  close(plan.steps.length - 1);
  return segments;
}

function sum(plan: Plan, weights: readonly number[]): number {
  return weights.reduce((total, weight) => total + slotBytesOf(plan.weights[weight].bytes), 0);
}

function tooLarge(plan: Plan, step: number, found: number, slot: number): HalftoneError {
  return new HalftoneError("out_of_memory", `Cannot stream the weights of step ${step}`, {
    tensor: plan.weights[weightsOfStep(plan, step)[0]].name,
    found: `${found} bytes`,
    expected: `at most ${slot} bytes a slot`,
    remedy: "Raise the memory for resident weights or choose a smaller weight format",
  });
}
