/** The stages of a FluxPipeline: text encoders, modulation, denoising, decoding. */

import type { Backend } from "../backends/backend.ts";
import type { AttentionChoice } from "./attention_choice.ts";
import type { CLIPTextModel } from "../models/clip.ts";
import type { T5EncoderModel } from "../models/t5.ts";
import type { FluxComponents, TextPart } from "./flux_components.ts";
import type { InputCalibration } from "./input_calibration.ts";
import type { PlannedStage } from "./memory_plan.ts";
import { PromptCache } from "./prompt_cache.ts";
import { Stage, type StageSizes } from "./stage.ts";
import type { StageClock } from "./stage_clock.ts";
import { tileSides } from "./vae_tiling.ts";
import type { TextEncoder } from "./text_encoding.ts";

/** All stages, in the order of a run. */
export interface FluxStages {
  readonly clip: TextEncoder<CLIPTextModel> | null;
  readonly t5: TextEncoder<T5EncoderModel> | null;
  readonly modulation: Stage<{ steps: number }>;
  readonly denoise: Stage<{ height: number; width: number; textTokens: number }>;
  readonly decode: Stage<{ height: number; width: number }>;
  /** Sides of what is decoded at once, for latents of these sides. */
  decodedSides(latents: { height: number; width: number }): { height: number; width: number };
}

/** What is traded for memory. */
export interface MemoryPolicy {
  /** Whether the text encoders' weights stay on the backend after use. */
  readonly keepTextEncoders: boolean;
  /** Whether the modulation weights do. */
  readonly keepModulation: boolean;
  /** Whether large pictures are decoded tile by tile. */
  readonly vaeTiling: boolean;
}

/** How stages compute. */
export interface StagePolicy extends MemoryPolicy {
  /** How the transformer's attention treats queries and keys. */
  readonly attention?: AttentionChoice;
}

/** Sizes of one picture's run. */
export interface FluxSizes {
  /** Tokens down and across. */
  readonly rows: number;
  readonly columns: number;
  readonly textTokens: number;
  /** T5 tokens of a prompt. */
  readonly maxSequenceLength: number;
  readonly steps: number;
}

/** The smallest run there is: its plans name the same weights as all others. */
export const SMALLEST_SIZES: FluxSizes = {
  rows: 1,
  columns: 1,
  textTokens: 1,
  maxSequenceLength: 1,
  steps: 1,
};

/** Makes the stages over a backend. */
export function fluxStages(
  components: FluxComponents,
  backend: Backend,
  clock: StageClock,
  policy: StagePolicy,
): FluxStages {
  const { transformer, vae, clip, t5 } = components;
  const qkDtype = policy.attention === "int8" ? "int8" : undefined;
  const textEncoder = <Model extends CLIPTextModel | T5EncoderModel>(
    part: TextPart<Model> | null,
  ): TextEncoder<Model> | null => {
    if (!part) return null;
    const { component } = part;
    const stage = new Stage<{ tokens: number }>({
      name: component.name,
      component,
      keepsWeights: policy.keepTextEncoders,
      backend,
      clock,
      capture: (graph, sizes) => component.model.captureEncode(graph, sizes),
    });
    return { ...part, stage, cache: new PromptCache() };
  };
  return {
    clip: textEncoder(clip),
    t5: textEncoder(t5),
    modulation: new Stage({
      name: "transformer.modulation",
      component: transformer,
      keepsWeights: policy.keepModulation,
      backend,
      clock,
      capture: (graph, sizes) => transformer.model.captureModulation(graph, sizes),
    }),
    denoise: new Stage({
      name: "transformer.denoise",
      component: transformer,
      keepsWeights: true,
      backend,
      clock,
      capture: (graph, sizes) => transformer.model.captureDenoise(graph, sizes, { qkDtype }),
    }),
    decode: new Stage({
      name: "vae.decode",
      component: vae,
      keepsWeights: true,
      backend,
      clock,
      capture: (graph, sizes) => vae.model.captureDecode(graph, sizes),
    }),
    decodedSides: (latents) => policy.vaeTiling ? tileSides(latents, vae.model) : latents,
  };
}

/** Tells a calibration of the inputs of the stages' linear layers. */
export function watchStages(stages: FluxStages, calibration: InputCalibration): void {
  const { clip, t5, modulation, denoise } = stages;
  for (const stage of [clip?.stage, t5?.stage, modulation, denoise]) {
    if (stage === undefined) continue;
    const rowsAreRuns = stage === modulation; // all steps at once, where Diffusers runs it at each
    stage.watcher = calibration.watcher(stage.component.name, { rowsAreRuns });
  }
}

/** A stage with its sizes in one run. */
export interface SizedStage {
  readonly stage: Stage;
  readonly sizes: StageSizes;
}

/** The stages in the order of a run, each with its sizes. */
export function sizedStages(stages: FluxStages, sizes: FluxSizes): SizedStage[] {
  const { clip, t5, modulation, denoise, decode } = stages;
  const { rows, columns, textTokens, steps } = sizes;
  const list: SizedStage[] = [];
  const add = <Sizes extends StageSizes>(stage: Stage<Sizes>, own: Sizes): void => {
    list.push({ stage: stage as unknown as Stage, sizes: own });
  };
  if (clip) add(clip.stage, { tokens: clip.component.model.config.maxPositionEmbeddings });
  if (t5) add(t5.stage, { tokens: sizes.maxSequenceLength });
  add(modulation, { steps });
  add(denoise, { height: rows, width: columns, textTokens });
  add(decode, stages.decodedSides({ height: 2 * rows, width: 2 * columns }));
  return list;
}

/**
 * Decides once, so that plans can tell, which stages' weights lie inside the backend's memory: kept
 * ones as long as there is room, then each of the others that fits beside them. Also tells each stage
 * which ones come later.
 */
export function placeWeights(stages: FluxStages, backend: Backend): void {
  const { residentWeightBytes } = backend.limits;
  const inOrder = sizedStages(stages, SMALLEST_SIZES);
  inOrder.forEach(({ stage }, index) => {
    stage.later = inOrder.slice(index + 1).map((item) => item.stage);
  });
  const list = inOrder.toReversed(); // the one that runs most comes early
  const keepsWeights = ({ stage }: SizedStage): boolean => stage.keepsWeights;
  const others = list.filter((item) => !keepsWeights(item));
  let inside = 0;
  for (const { stage, sizes } of [...list.filter(keepsWeights), ...others]) {
    const { weightBytes } = stage.plan(sizes);
    stage.streamsWeights = inside + weightBytes > residentWeightBytes;
    if (stage.keepsWeights && !stage.streamsWeights) inside += weightBytes;
  }
}

/** Plans all stages of a run. */
export function planStages(stages: readonly SizedStage[], backend: Backend): PlannedStage[] {
  return stages.map(({ stage, sizes }) => {
    const plan = stage.plan(sizes);
    const { name, keepsWeights, streamsWeights } = stage;
    const scratchBytes = backend.scratchBytes(plan, streamsWeights);
    const weightBytes = backend.weightBytes?.(plan) ?? plan.weightBytes;
    const streams = streamsWeights ?? plan.weightBytes > backend.limits.residentWeightBytes;
    return { name, plan, weightBytes, keepsWeights, streamsWeights: streams, scratchBytes };
  });
}
