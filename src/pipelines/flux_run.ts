/** One call of FluxPipeline.generate: encode, modulate, denoise, decode. */

import type { Backend, Program } from "../backends/backend.ts";
import { calculateShift } from "../schedulers/flow_match_config.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import {
  denoise,
  type GuidanceBranch,
  modulationInputs,
  modulations,
  throwIfAborted,
} from "./denoising.ts";
import { type FluxComponents, storedBytes } from "./flux_components.ts";
import type {
  FluxGenerateOptions,
  FluxPipelineOptions,
  FluxPipelineOutput,
} from "./flux_options.ts";
import type { FluxRequest } from "./flux_request.ts";
import { type FluxStages, planStages, sizedStages } from "./flux_stages.ts";
import { asciiJson, PipelineImage, quantizePixels } from "./image.ts";
import { drawLatents, unpackLatents, unscaleLatents } from "./latents.ts";
import { checkArena, plannedMemory, type PlannedStage } from "./memory_plan.ts";
import { combinedHash } from "./plan_hash.ts";
import type { PromptSource } from "./prompt_source.ts";
import type { StageClock } from "./stage_clock.ts";
import type { StageUse } from "./stage.ts";
import { decodeTiled } from "./vae_tiling.ts";
import { encodeSources, type PromptConditioning } from "./text_encoding.ts";

/** What a pipeline is made of. */
export interface FluxParts {
  readonly components: FluxComponents;
  readonly backend: Backend;
  /** Whether the backend was made for this pipeline and closes with it. */
  readonly ownsBackend: boolean;
  readonly stages: FluxStages;
  readonly clock: StageClock;
  readonly onWarning: (message: string) => void;
  readonly onProgress: FluxPipelineOptions["onProgress"];
}

/** Conditioning of prompt sources, a list per source. */
export function encodeWith(
  { stages: { clip, t5 }, onWarning, onProgress }: FluxParts,
  sources: readonly PromptSource[],
  maxSequenceLength: number,
  signal: AbortSignal | undefined,
): Promise<PromptConditioning[][]> {
  const encoders = clip && t5 ? { clip, t5 } : null;
  const use = { signal, onProgress, onWarning };
  return encodeSources(sources, encoders, maxSequenceLength, use);
}

/** A checked call on its way. */
export class FluxRun {
  readonly #parts: FluxParts;
  readonly #request: FluxRequest;
  readonly #options: FluxGenerateOptions;
  readonly #use: StageUse;

  constructor(parts: FluxParts, request: FluxRequest, options: FluxGenerateOptions) {
    this.#parts = parts;
    this.#request = request;
    this.#options = options;
    this.#use = { signal: request.signal, onProgress: parts.onProgress };
  }

  /** Does everything, in the order of Diffusers' pipeline. */
  async run(): Promise<FluxPipelineOutput> {
    const { clock } = this.#parts;
    const { latents, generators, images, sizes, signal, outputType } = this.#request;
    throwIfAborted(signal);
    this.#warnOfRounding();
    const planned = this.#plan();
    const planHash = combinedHash(planned.map(({ plan }) => plan.hash));
    const start = latents?.toFloat32().slice() ?? drawLatents(generators, images, sizes);
    const conditionings = await clock.measure("text", () => this.#encode());
    const packed = await clock.measure("denoise", () => this.#denoise(conditionings, start));
    const pictures = outputType === "latent"
      ? []
      : await clock.measure("decode", () => this.#decode(packed, planHash));
    const { resident } = plannedMemory(planned);
    return { ...this.#output(packed, resident), images: pictures, planHash };
  }

  #warnOfRounding(): void {
    const { width, height, sizes } = this.#request;
    const token = 2 * this.#parts.components.vae.model.scaleFactor;
    const [wide, high] = [sizes.columns * token, sizes.rows * token];
    if (wide === width && high === height) return;
    this.#parts.onWarning(
      `Sides must be divisible by ${token}: ${width}x${height} comes out as ${wide}x${high}`,
    );
  }

  /** Plans every stage first, so that what cannot fit fails before anything runs. */
  #plan(): PlannedStage[] {
    const { backend, stages } = this.#parts;
    const { sizes: { rows, columns }, textTokens, maxSequenceLength } = this.#request;
    const steps = this.#request.numInferenceSteps;
    const sizes = { rows, columns, textTokens, maxSequenceLength, steps };
    const planned = planStages(sizedStages(stages, sizes), backend);
    checkArena(planned, backend);
    return planned;
  }

  /** Conditioning per picture: positive, and negative under true guidance. */
  async #encode(): Promise<PromptConditioning[][]> {
    const { positive, negative, maxSequenceLength, signal, imagesPerPrompt } = this.#request;
    const sources = negative ? [positive, negative] : [positive];
    const encoded = await encodeWith(this.#parts, sources, maxSequenceLength, signal);
    const repeat = (prompt: PromptConditioning) =>
      new Array<PromptConditioning>(imagesPerPrompt).fill(prompt);
    return encoded.map((prompts) => prompts.flatMap(repeat));
  }

  async #denoise(
    [positive, negative]: readonly PromptConditioning[][],
    start: Float32Array,
  ): Promise<Float32Array> {
    const { components: { scheduler }, clock, stages } = this.#parts;
    const { sizes: { tokens, rows: height, columns: width }, sigmas } = this.#request;
    const { textTokens, negativeTextTokens } = this.#request;
    scheduler.setTimesteps({ sigmas, mu: calculateShift(tokens, scheduler.config) });
    const modulation = await this.#modulate([...positive, ...negative ?? []]);
    const branch = (program: Program, prompts: readonly PromptConditioning[]): GuidanceBranch => ({
      program,
      text: prompts.map(({ text }) => text),
      modulation: prompts.map(({ pooled }) => modulation.get(pooled)!),
    });
    const loop = (forPositive: Program, forNegative: Program): Promise<Float32Array> => {
      const away = negative ? branch(forNegative, negative) : null;
      const request = this.#request;
      const run = { request, scheduler, clock, positive: branch(forPositive, positive) };
      return denoise({ ...run, negative: away }, start);
    };
    const { denoise: stage } = stages;
    return await stage.run({ height, width, textTokens }, this.#use, async (program) => {
      if (!negative || negativeTextTokens === textTokens) return await loop(program, program);
      const sizes = { height, width, textTokens: negativeTextTokens };
      return await stage.run(sizes, this.#use, (other) => loop(program, other));
    });
  }

  /** Modulation for all steps by pooled vector; its weights may leave before step 1. */
  #modulate(conditionings: readonly PromptConditioning[]): Promise<Map<HostTensor, HostTensor>> {
    const { components: { scheduler, transformer }, stages: { modulation } } = this.#parts;
    const { guidanceScale, signal } = this.#request;
    const guidance = transformer.model.config.guidanceEmbeds ? guidanceScale : null;
    const inputs = modulationInputs(scheduler.timesteps, guidance);
    const steps = scheduler.timesteps.length;
    return modulation.run(
      { steps },
      this.#use,
      (program) => modulations(program, inputs, conditionings, signal),
    );
  }

  async #decode(packed: Float32Array, planHash: string): Promise<PipelineImage[]> {
    const { sizes, images } = this.#request;
    const { config } = this.#parts.components.vae.model;
    const length = packed.length / images;
    const pictures: PipelineImage[] = [];
    for (let image = 0; image < images; image++) {
      const own = packed.subarray(image * length, (image + 1) * length);
      const latents = unscaleLatents(unpackLatents(own, sizes), config);
      const decoded = await this.#decodePicture(latents); // [height, width, 3]
      const [height, width] = decoded.shape;
      const text = this.#textOf(image, planHash);
      pictures.push(new PipelineImage(width, height, quantizePixels(decoded), text));
    }
    return pictures;
  }

  /** Whole, or by tiles where the stage decodes no more at once. */
  #decodePicture(latents: HostTensor): Promise<HostTensor> {
    const { stages: { decodedSides }, components: { vae } } = this.#parts;
    const [height, width] = latents.shape;
    const sides = decodedSides({ height, width });
    const isWhole = sides.height === height && sides.width === width;
    return isWhole
      ? this.#decodePart(latents)
      : decodeTiled(latents, vae.model, (tile) => this.#decodePart(tile));
  }

  #decodePart(latents: HostTensor): Promise<HostTensor> {
    const [height, width] = latents.shape;
    return this.#parts.stages.decode.run({ height, width }, this.#use, async (program) => {
      program.write("latents", latents);
      await program.run({ signal: this.#request.signal });
      return program.read("image");
    });
  }

  /** What a PNG tells of its making; nothing that differs between machines. */
  #textOf(image: number, planHash: string): Record<string, string> {
    const { positive, negative, seed, imagesPerPrompt, numInferenceSteps } = this.#request;
    const { guidanceScale, trueCfgScale } = this.#request;
    const { prompt2, negativePrompt } = this.#options;
    const parameters = {
      prompt: positive.kind === "text"
        ? positive.clip[Math.floor(image / imagesPerPrompt)]
        : undefined,
      prompt2,
      negativePrompt: negative ? negativePrompt : undefined,
      seed: seed === null ? undefined : String(Array.isArray(seed) ? seed[image] : seed),
      image,
      numInferenceSteps,
      guidanceScale,
      trueCfgScale,
      planHash,
    };
    return { Software: "halftone", parameters: asciiJson(parameters) };
  }

  #output(
    packed: Float32Array,
    resident: number,
  ): Omit<FluxPipelineOutput, "images" | "planHash"> {
    const { backend, clock, components } = this.#parts;
    const { sizes, seed, images: count } = this.#request;
    const side = 2 * components.vae.model.scaleFactor;
    const backendMemory = backend.memory();
    const { peak, devicePeak } = backendMemory;
    const device = devicePeak === undefined ? {} : { devicePeak };
    return {
      latents: HostTensor.fromFloat32(packed, [
        count,
        sizes.tokens,
        packed.length / count / sizes.tokens,
      ]),
      seed,
      width: sizes.columns * side,
      height: sizes.rows * side,
      timings: clock.take(),
      memory: { stored: storedBytes(components), resident, peak, ...device },
      backendMemory,
    };
  }
}
