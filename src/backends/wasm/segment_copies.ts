/** What the loader copies into which slot. */

import type { Plan } from "../../plan/plan.ts";
import type { SlotPlan } from "../slot_plan.ts";
import type { WasmWeightSet } from "./weight_set.ts";
import type { SegmentCopy } from "./worker_messages.ts";

/** The copies that fill each segment's slot. */
export function segmentCopies(
  plan: Plan,
  slots: SlotPlan,
  addresses: readonly [number, number],
  set: WasmWeightSet,
): SegmentCopy[][] {
  return slots.offsets.map((places, segment) =>
    [...places].flatMap(([weight, offset]) => {
      const home = set.home(plan.weights[weight].name);
      const to = addresses[segment % 2] + offset;
      return home.kind === "outside" ? [{ unit: home.unit, to }] : [];
    })
  );
}
