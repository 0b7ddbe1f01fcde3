/** What a FluxPipeline run will need, told before any weight is loaded. */

import type { Backend, MemoryUse } from "../backends/backend.ts";
import { HalftoneError } from "../errors.ts";
import { planText } from "../plan/print.ts";
import type { FluxComponents } from "./flux_components.ts";
import { fluxComponentList, fluxTraits, storedBytes } from "./flux_components.ts";
import type { MemoryReport } from "./flux_options.ts";
import { CALL_LIMITS } from "./call_checks.ts";
import { type FluxStages, planStages, sizedStages } from "./flux_stages.ts";
import { latentSizes } from "./latents.ts";
import { plannedMemory } from "./memory_plan.ts";
import { combinedHash } from "./plan_hash.ts";

/** The sizes of a run, with the defaults of `generate`. */
export interface FluxPlanOptions {
  /** Pixels; by default the model's own. */
  readonly width?: number;
  /** See `width`. */
  readonly height?: number;
  /** 28 by default. */
  readonly numInferenceSteps?: number;
  /** 512 by default. */
  readonly maxSequenceLength?: number;
}

/** One stage of a run. */
export interface StageReport {
  /** Such as "transformer.denoise". */
  readonly name: string;
  /** The plan as text. */
  readonly text: string;
  /** Steps of the plan. */
  readonly steps: number;
  /** The first 16 hex digits of the SHA-256 of `text`. */
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
  /** Such as "text_encoder_2". */
  readonly name: string;
  /** Bytes in the checkpoint's files. */
  readonly fileBytes: number;
  /** Bytes as a backend holds them, in the chosen format. */
  readonly storedBytes: number;
  /** The part of `storedBytes` that is scales, offsets and tables. */
  readonly scaleBytes: number;
  /** The quantization method in effect; null for dense weights. */
  readonly quantMethod: string | null;
}

/** Bytes of a pipeline, planned and counted. */
export interface PipelineMemoryReport extends MemoryReport {
  /** Its models, in the order of a run. */
  readonly components: readonly ComponentReport[];
  /** What the backend holds now, and the most so far, as its allocators counted. */
  readonly backend: MemoryUse;
}

/** What a run will need. */
export interface FluxPlanReport {
  /** Pixels across, of the picture as it will come out. */
  readonly width: number;
  /** Pixels down. */
  readonly height: number;
  /** Denoising steps. */
  readonly numInferenceSteps: number;
  /** The backend that was planned for. */
  readonly backend: string;
  /** In the order of a run. */
  readonly components: readonly ComponentReport[];
  /** In the order of a run. */
  readonly stages: readonly StageReport[];
  /** The hash that `generate` will report. */
  readonly planHash: string;
  /** Bytes stored, resident and at the peak. */
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
      scaleBytes: weights.memory().scales,
      quantMethod: weights.quantizationConfig?.quantMethod ?? null,
    })),
    stages: planned.map(({ name, plan, scratchBytes, keepsWeights }) => ({
      name,
      text: planText(plan),
      steps: plan.steps.length,
      hash: plan.hash,
      weightBytes: plan.weightBytes,
      arenaBytes: plan.arenaBytes,
      scratchBytes,
      keepsWeights,
    })),
    planHash: combinedHash(planned.map(({ plan }) => plan.hash)),
    memory: {
      stored: storedBytes(components),
      ...plannedMemory(planned, backend.memory().devicePeak !== undefined),
    },
  };
}

function bounded(field: string, value: number, minimum: number, maximum: number): number {
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
  throw new HalftoneError("invalid_argument", "Cannot plan a run of this size", {
    field,
    found: value,
    expected: `an integer from ${minimum} to ${maximum}`,
  });
}
