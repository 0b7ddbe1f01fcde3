/** Where streamed weights lie at each step of a compiled plan: in one of two slots. */

import type { Plan } from "../plan/plan.ts";
import { type Segment, segmentPlan, slotBytesOf, weightsOfStep } from "../plan/residency.ts";
import { unitLayout } from "./weight_unit.ts";

/** Slots beyond this size bring nothing: copying is then fully hidden. */
const LARGEST_SLOT = 128 * 1024 * 1024;

/** Segments of a plan and where each weight lies inside its slot. */
export interface SlotPlan {
  readonly segments: readonly Segment[];
  /** Bytes of the slot of even and of odd segments. */
  readonly slotBytes: readonly [number, number];
  /** Per segment: byte offset of each weight in its slot, by weight index. */
  readonly offsets: readonly ReadonlyMap<number, number>[];
}

/** Cuts a plan whose weights stream through two slots of at most half the budget each. */
export function planSlots(plan: Plan, residentWeightBytes: number): SlotPlan {
  const largestStep = plan.steps.reduce(
    (most, _, step) => Math.max(most, bytesOf(plan, weightsOfStep(plan, step))),
    0,
  );
  const budget = Math.min(Math.floor(residentWeightBytes / 2), LARGEST_SLOT);
  const segments = segmentPlan(plan, Math.max(budget, largestStep));
  const slotBytes: [number, number] = [0, 0];
  const offsets = segments.map((segment, index) => {
    const places = new Map<number, number>();
    let end = 0;
    for (const weight of segment.weights) {
      places.set(weight, end);
      end += unitLayout(plan.weights[weight]).bytes;
    }
    slotBytes[index % 2] = Math.max(slotBytes[index % 2], end);
    return places;
  });
  return { segments, slotBytes, offsets };
}

function bytesOf(plan: Plan, weights: readonly number[]): number {
  return weights.reduce((sum, weight) => sum + slotBytesOf(plan.weights[weight].bytes), 0);
}

/** The segment of each step. */
export function segmentOfSteps(slots: SlotPlan): number[] {
  return slots.segments.flatMap((segment, index) =>
    Array.from({ length: segment.lastStep - segment.firstStep + 1 }, () => index)
  );
}
