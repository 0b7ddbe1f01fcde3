/** What a run will need, from plans alone. */

import type { Backend } from "../backends/backend.ts";
import { HalftoneError } from "../errors.ts";
import type { Plan } from "../plan/plan.ts";
import type { MemoryReport } from "./flux_options.ts";

/** A stage in the order of a run. */
export interface PlannedStage {
  readonly name: string;
  readonly plan: Plan;
  /** Bytes that its weights take on the backend. */
  readonly weightBytes: number;
  /** Whether its weights stay after use. */
  readonly keepsWeights: boolean;
  /** Whether its weights lie outside the backend's own memory and stream in. */
  readonly streamsWeights: boolean;
  /** Bytes beside weights and arena. */
  readonly scratchBytes: number;
}

/** What the stages hold at the same time; `devicePeak` where the backend has a device. */
export function plannedMemory(
  stages: readonly PlannedStage[],
  hasDevice = false,
): Omit<MemoryReport, "stored"> {
  if (!hasDevice) return heldMemory(stages);
  const onDevice = stages.map((stage) =>
    stage.streamsWeights ? { ...stage, weightBytes: 0 } : stage
  );
  return { ...heldMemory(stages), devicePeak: heldMemory(onDevice).peak };
}

/** All kept weights come first when all are kept. */
function heldMemory(stages: readonly PlannedStage[]): Omit<MemoryReport, "stored"> {
  const keepsAll = stages.every((stage) => stage.keepsWeights);
  let held = keepsAll ? stages.reduce((sum, { weightBytes }) => sum + weightBytes, 0) : 0;
  let resident = held;
  let peak = 0;
  for (const { plan, weightBytes, keepsWeights, scratchBytes } of stages) {
    const during = keepsAll ? held : held + weightBytes;
    resident = Math.max(resident, during);
    peak = Math.max(peak, during + plan.arenaBytes + scratchBytes);
    if (keepsWeights) held = during;
  }
  return { resident, peak };
}

/** Throws `out_of_memory` before anything runs when a stage's intermediates cannot fit. */
export function checkArena(stages: readonly PlannedStage[], backend: Backend): void {
  const { arenaBytes } = backend.limits;
  const tooLarge = stages.find((stage) => stage.plan.arenaBytes > arenaBytes);
  if (!tooLarge) return;
  const { name } = tooLarge;
  throw new HalftoneError("out_of_memory", `Cannot fit ${name} into memory`, {
    field: name === "transformer.modulation" ? "numInferenceSteps" : "width",
    found: `${tooLarge.plan.arenaBytes} bytes of intermediates`,
    expected: `at most ${arenaBytes} bytes on backend ${backend.name}`,
    remedy: REMEDIES[name] ?? "Choose a smaller width and height",
  });
}

const REMEDIES: Readonly<Record<string, string>> = {
  "transformer.modulation": "Choose fewer steps",
  "vae.decode": "Choose a smaller width and height, or decode by tiles (vaeTiling)",
};
