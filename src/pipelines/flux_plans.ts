/** What a FluxPipeline run will need, told before any weight is loaded. */

import type { Backend } from "../backends/backend.ts";
import { HalftoneError } from "../errors.ts";
import type { Plan } from "../plan/plan.ts";
import { planText } from "../plan/print.ts";
import type { FluxComponents } from "./flux_components.ts";
import { fluxComponentList, fluxTraits } from "./flux_components.ts";
import type { MemoryReport } from "./flux_options.ts";
import { CALL_LIMITS } from "./flux_request.ts";
import { type FluxStages, planStages, sizedStages } from "./flux_stages.ts";
import { latentSizes } from "./latents.ts";
import { plannedMemory } from "./memory_plan.ts";
import { combinedHash } from "./plan_hash.ts";

/** The sizes of a run, with the defaults of `generate`. */
export interface FluxPlanOptions {
  readonly width?: number;
  readonly height?: number;
  readonly numInferenceSteps?: number;
  readonly maxSequenceLength?: number;
}

/** One stage of a run. */
export interface StageReport {
  /** Such as "transformer.denoise". */
  readonly name: string;
  readonly plan: Plan;
  /** The plan as text. */
  readonly text: string;
  readonly hash: string;
  /** Bytes of the weights it reads. */
  readonly weightBytes: number;
  /** Bytes of its intermediates, inputs, outputs and constants. */
  readonly arenaBytes: number;
  /** Bytes the backend needs beside them. */
  readonly scratchBytes: number;
  /** Whether its weights stay after use. */
  readonly keepsWeights: boolean;
}

/** One component's weights. */
export interface ComponentReport {
  readonly name: string;
  /** Bytes in the checkpoint's files. */
  readonly fileBytes: number;
  /** Bytes as a backend holds them, in the chosen format. */
  readonly storedBytes: number;
  /** The quantization method in effect; null for dense weights. */
  readonly quantMethod: string | null;
}

/** What a run will need. */
export interface FluxPlanReport {
  readonly width: number;
  readonly height: number;
  readonly numInferenceSteps: number;
  readonly backend: string;
  readonly components: readonly ComponentReport[];
  /** In the order of a run. */
  readonly stages: readonly StageReport[];
  /** The hash that `generate` will report. */
  readonly planHash: string;
  readonly memory: MemoryReport;
}

/** Plans a run. Throws `invalid_argument` for sizes that `generate` would refuse. */
export function describeRun(
  components: FluxComponents,
  stages: FluxStages,
  backend: Backend,
  options: FluxPlanOptions,
): FluxPlanReport {
  const { scaleFactor, inChannels, defaultSide } = fluxTraits(components);
  const smallest = 2 * scaleFactor;
  const width = bounded("width", options.width ?? defaultSide, smallest, CALL_LIMITS.side);
  const height = bounded("height", options.height ?? defaultSide, smallest, CALL_LIMITS.side);
  const steps = bounded("numInferenceSteps", options.numInferenceSteps ?? 28, 1, CALL_LIMITS.steps);
  const { sequenceLength } = CALL_LIMITS;
  const maxSequenceLength = bounded(
    "maxSequenceLength",
    options.maxSequenceLength ?? sequenceLength,
    1,
    sequenceLength,
  );
  const { rows, columns } = latentSizes({ width, height }, scaleFactor, inChannels);
  const sizes = { rows, columns, textTokens: maxSequenceLength, maxSequenceLength, steps };
  const planned = planStages(sizedStages(stages, sizes), backend);
  return {
    width: columns * smallest,
    height: rows * smallest,
    numInferenceSteps: steps,
    backend: backend.name,
    components: fluxComponentList(components).map(({ name, weights }) => ({
      name,
      fileBytes: weights.memory().stored,
      storedBytes: weights.memory().resident,
      quantMethod: weights.quantizationConfig?.quantMethod ?? null,
    })),
    stages: planned.map(({ name, plan, scratchBytes, keepsWeights }) => ({
      name,
      plan,
      text: planText(plan),
      hash: plan.hash,
      weightBytes: plan.weightBytes,
      arenaBytes: plan.arenaBytes,
      scratchBytes,
      keepsWeights,
    })),
    planHash: combinedHash(planned.map(({ plan }) => plan.hash)),
    memory: { stored: storedBytes(components), ...plannedMemory(planned) },
  };
}

function storedBytes(components: FluxComponents): number {
  return fluxComponentList(components)
    .reduce((sum, { weights }) => sum + weights.memory().resident, 0);
}

function bounded(field: string, value: number, minimum: number, maximum: number): number {
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
  throw new HalftoneError("invalid_argument", "Cannot plan a run of this size", {
    field,
    found: value,
    expected: `an integer from ${minimum} to ${maximum}`,
  });
}
