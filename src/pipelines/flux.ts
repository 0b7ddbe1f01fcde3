/**
 * FluxPipeline: pictures from text with FLUX.1 models.
 *
 * After Diffusers, src/diffusers/pipelines/flux/pipeline_flux.py: the same options, defaults and
 * order of random draws, so that the same seed gives the same picture.
 */

import type { Backend } from "../backends/backend.ts";
import { createBackend } from "../backends/select.ts";
import { HalftoneError } from "../errors.ts";
import { resolveModel } from "../io/resolve_model.ts";
import { calculateShift } from "../schedulers/flow_match_config.ts";
import { checkPipelineConfig } from "../quantization/pipeline_config.ts";
import type { WeightDType } from "../quantization/weights.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { type BackendHandle, backendOf } from "./backend_handle.ts";
import {
  denoise,
  type GuidanceBranch,
  modulationInputs,
  modulations,
  throwIfAborted,
} from "./denoising.ts";
import {
  closeFluxComponents,
  fluxComponentList,
  type FluxComponents,
  fluxTraits,
  openFluxComponents,
} from "./flux_components.ts";
import type {
  EncodePromptOptions,
  FluxGenerateOptions,
  FluxPipelineOptions,
  FluxPipelineOutput,
  MemoryReport,
  PromptEmbeddings,
} from "./flux_options.ts";
import { describeRun, type FluxPlanOptions, type FluxPlanReport } from "./flux_plans.ts";
import {
  type FluxRequest,
  parseEncodeRequest,
  parseFluxRequest,
  type PromptSource,
} from "./flux_request.ts";
import {
  type FluxSizes,
  type FluxStages,
  fluxStages,
  type KeepPolicy,
  planStages,
  sizedStages,
  SMALLEST_SIZES,
} from "./flux_stages.ts";
import { asciiJson, PipelineImage, quantizePixels } from "./image.ts";
import { drawLatents, unpackLatents, unscaleLatents } from "./latents.ts";
import { checkArena, plannedMemory, type PlannedStage } from "./memory_plan.ts";
import { combinedHash } from "./plan_hash.ts";
import { saveModelFolder, type SaveOptions } from "./save_pretrained.ts";
import { StageClock } from "./stage_clock.ts";
import type { StageUse } from "./stage.ts";
import { encodeSources, joinEmbeds, type PromptConditioning } from "./text_encoding.ts";

const PIPELINE_OPTIONS: readonly (keyof FluxPipelineOptions)[] = [
  "backend",
  "dtype",
  "quantizationConfig",
  "threads",
  "strict",
  "residentWeightBytes",
  "variant",
  "keepTextEncoders",
  "keepModulation",
  "onWarning",
  "onProgress",
  "signal",
];

const WEIGHT_DTYPES: readonly WeightDType[] = ["float32", "bfloat16", "float16"];

/** What a pipeline is made of. */
interface FluxParts {
  readonly components: FluxComponents;
  readonly backend: Backend;
  /** Whether the backend was made here and closes with the pipeline. */
  readonly ownsBackend: boolean;
  readonly stages: FluxStages;
  readonly clock: StageClock;
  readonly options: FluxPipelineOptions;
}

/**
 * Pictures from text with a FLUX.1 model.
 *
 * ```ts
 * await using pipe = await FluxPipeline.fromPretrained("models/demo");
 * const { images } = await pipe.generate({ prompt: "a red star above a blue house", seed: 0 });
 * await images[0].save("star.png");
 * ```
 */
export class FluxPipeline {
  readonly #parts: FluxParts;
  #queue: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  private constructor(parts: FluxParts) {
    this.#parts = parts;
  }

  /**
   * Opens a model folder (or the id of a Hub model) as Diffusers writes it. When all weights fit the
   * backend they are loaded here and stay; else each stage loads its own when its turn comes.
   *
   * Throws `model_not_found`, `missing_file`, `invalid_config`, `invalid_safetensors`,
   * `missing_tensor`, `tensor_shape_mismatch`, `non_finite_weight`, `unsupported`,
   * `backend_unavailable`, `invalid_argument`, `aborted`.
   */
  static async fromPretrained(
    model: string,
    options: FluxPipelineOptions = {},
  ): Promise<FluxPipeline> {
    const pipeline = await FluxPipeline.#open(model, options);
    try {
      await pipeline.#loadKept();
      return pipeline;
    } catch (error) {
      await pipeline.dispose();
      throw error;
    }
  }

  /**
   * What a run will need, from configs and headers alone: every plan with its text and hash, bytes
   * stored, resident and at the peak. No weight is loaded.
   */
  static async describe(
    model: string,
    options: FluxPipelineOptions & FluxPlanOptions = {},
  ): Promise<FluxPlanReport> {
    const { width, height, numInferenceSteps, maxSequenceLength, ...rest } = options;
    const pipeline = await FluxPipeline.#open(model, rest);
    try {
      return pipeline.plan({ width, height, numInferenceSteps, maxSequenceLength });
    } finally {
      await pipeline.dispose();
    }
  }

  static async #open(model: string, options: FluxPipelineOptions): Promise<FluxPipeline> {
    checkOptions(options);
    const { signal, variant, dtype, backend: wanted } = options;
    throwIfAborted(signal);
    const quantizationConfig = checkPipelineConfig(options.quantizationConfig);
    const folder = await resolveModel(model, { signal, variant });
    const components = await openFluxComponents(folder, {
      dtype,
      variant,
      quantizationConfig,
      onWarning: warningHandler(options),
    });
    try {
      const ownsBackend = wanted === undefined || typeof wanted === "string";
      const backend = ownsBackend ? await makeBackend(options) : backendOf(wanted);
      const clock = new StageClock();
      const keep = keepPolicy(components, backend, options);
      const stages = fluxStages(components, backend, clock, keep);
      return new FluxPipeline({ components, backend, ownsBackend, stages, clock, options });
    } catch (error) {
      await closeFluxComponents(components);
      throw error;
    }
  }

  /** The backend that runs this pipeline. */
  get backend(): BackendHandle {
    return this.#parts.backend;
  }

  /** The folder the model was opened from. */
  get folder(): string {
    return this.#parts.components.folder;
  }

  /** The plans of a run of these sizes, and what it will need. */
  plan(options: FluxPlanOptions = {}): FluxPlanReport {
    this.#checkOpen();
    const { components, stages, backend } = this.#parts;
    return describeRun(components, stages, backend, options);
  }

  /** Bytes of all weights as they are stored. */
  get storedBytes(): number {
    return fluxComponentList(this.#parts.components)
      .reduce((sum, { weights }) => sum + weights.memory().resident, 0);
  }

  /**
   * Makes pictures. Calls wait for each other: one runs at a time.
   *
   * Throws `invalid_argument` naming the option, `out_of_memory` before anything runs, `aborted`
   * within one step of the signal.
   */
  async generate(options: FluxGenerateOptions): Promise<FluxPipelineOutput> {
    this.#checkOpen();
    const request = parseFluxRequest(options, fluxTraits(this.#parts.components));
    return await this.#enqueue(() => this.#run(request, options));
  }

  /**
   * Encodes prompts once, to generate from them many times: give the result to `generate` in place of
   * the prompts. Throws `invalid_argument`, `aborted`.
   */
  async encodePrompt(options: EncodePromptOptions): Promise<PromptEmbeddings> {
    this.#checkOpen();
    const { source, maxSequenceLength } = parseEncodeRequest(
      options,
      fluxTraits(this.#parts.components),
    );
    const { signal } = options;
    throwIfAborted(signal);
    const [encoded] = await this.#enqueue(() =>
      this.#encodeSources([source], maxSequenceLength, signal)
    );
    return joinEmbeds(encoded);
  }

  /**
   * Writes the model as it was loaded (quantized, or rounded to `dtype`) into a new folder, in the
   * layout that Diffusers reads. Throws `write_failed`, also when something stands there already.
   */
  async savePretrained(folder: string, options: SaveOptions = {}): Promise<void> {
    this.#checkOpen();
    const { components, options: form } = this.#parts;
    const list = fluxComponentList(components);
    await saveModelFolder(components.folder, folder, list, form, options);
  }

  /** Frees the weights, closes the files, and closes a backend that was made for this pipeline. */
  async dispose(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#queue.catch(() => {});
    const { components, stages, backend, ownsBackend } = this.#parts;
    for (const { stage } of sizedStages(stages, SMALLEST_SIZES)) await stage.release();
    if (ownsBackend) await backend.close();
    await closeFluxComponents(components);
  }

  /** See `dispose`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new HalftoneError("closed", "Cannot use a disposed pipeline");
  }

  #enqueue<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(() => {
      this.#checkOpen();
      return action();
    });
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Loads every stage now when all of them keep their weights. */
  async #loadKept(): Promise<void> {
    const list = sizedStages(this.#parts.stages, SMALLEST_SIZES);
    if (!list.every(({ stage }) => stage.keepsWeights)) return;
    for (const { stage, sizes } of list) {
      await stage.load(sizes, this.#use(stage.name, this.#parts.options.signal));
    }
  }

  #use(stage: string, signal: AbortSignal | undefined): StageUse {
    const { onProgress } = this.#parts.options;
    return { signal, onProgress: (done, total) => onProgress?.({ stage, done, total }) };
  }

  async #run(request: FluxRequest, options: FluxGenerateOptions): Promise<FluxPipelineOutput> {
    const { backend, clock, stages } = this.#parts;
    throwIfAborted(request.signal);
    this.#warnOfRounding(request);
    const planned = planStages(sizedStages(stages, runSizes(request)), backend);
    checkArena(planned, backend);
    const start = request.latents?.toFloat32().slice() ??
      drawLatents(request.generators, request.images, request.sizes);
    const conditionings = await clock.measure("text", () => this.#encode(request));
    const packed = await clock.measure(
      "denoise",
      () => this.#denoise(request, conditionings, start),
    );
    const images = request.outputType === "latent"
      ? []
      : await clock.measure("decode", () => this.#decode(request, options, packed));
    return this.#output(request, packed, images, planned);
  }

  #warnOfRounding({ width, height, sizes }: FluxRequest): void {
    const { components: { vae }, options } = this.#parts;
    const token = 2 * vae.model.scaleFactor;
    const [wide, high] = [sizes.columns * token, sizes.rows * token];
    if (wide === width && high === height) return;
    warningHandler(options)(
      `Sides must be divisible by ${token}: ${width}x${height} comes out as ${wide}x${high}`,
    );
  }

  /** Conditioning per picture: positive, and negative under true guidance. */
  async #encode(request: FluxRequest): Promise<PromptConditioning[][]> {
    const sources = request.negative ? [request.positive, request.negative] : [request.positive];
    const { maxSequenceLength, signal } = request;
    const encoded = await this.#encodeSources(sources, maxSequenceLength, signal);
    return encoded.map((prompts) =>
      prompts.flatMap((prompt) =>
        new Array<PromptConditioning>(request.imagesPerPrompt).fill(prompt)
      )
    );
  }

  async #encodeSources(
    sources: readonly PromptSource[],
    maxSequenceLength: number,
    signal: AbortSignal | undefined,
  ): Promise<PromptConditioning[][]> {
    const { stages: { clip, t5 }, options } = this.#parts;
    const encoders = clip && t5 ? { clip, t5 } : null;
    const use = { ...this.#use("text_encoder", signal), onWarning: warningHandler(options) };
    return await encodeSources(sources, encoders, maxSequenceLength, use);
  }

  async #denoise(
    request: FluxRequest,
    conditionings: readonly PromptConditioning[][],
    start: Float32Array,
  ): Promise<Float32Array> {
    const { components: { scheduler }, clock, stages } = this.#parts;
    const mu = calculateShift(request.sizes.tokens, scheduler.config);
    scheduler.setTimesteps({ sigmas: request.sigmas, mu });
    const modulation = await this.#modulate(request, conditionings.flat());
    const use = this.#use(stages.denoise.name, request.signal);
    const branchOf = (program: GuidanceBranch["program"], prompts: PromptConditioning[]) => ({
      program,
      text: prompts.map(({ text }) => text),
      modulation: prompts.map(({ pooled }) => modulation.get(pooled)!),
    });
    const { rows: height, columns: width } = request.sizes;
    const { textTokens, negativeTextTokens } = request;
    const [positive, negative] = conditionings;
    return await stages.denoise.run({ height, width, textTokens }, use, async (program) => {
      const run = { request, scheduler, clock, positive: branchOf(program, positive) };
      if (!negative) return await denoise({ ...run, negative: null }, start);
      if (negativeTextTokens === textTokens) {
        return await denoise({ ...run, negative: branchOf(program, negative) }, start);
      }
      const sizes = { height, width, textTokens: negativeTextTokens };
      return await stages.denoise.run(
        sizes,
        use,
        (other) => denoise({ ...run, negative: branchOf(other, negative) }, start),
      );
    });
  }

  /** Modulation for all steps by pooled vector; its weights may leave before step 1. */
  #modulate(
    request: FluxRequest,
    conditionings: readonly PromptConditioning[],
  ): Promise<Map<HostTensor, HostTensor>> {
    const { components: { scheduler, transformer }, stages: { modulation } } = this.#parts;
    const { guidanceEmbeds } = transformer.model.config;
    const guidance = guidanceEmbeds ? request.guidanceScale : null;
    const inputs = modulationInputs(scheduler.timesteps, guidance);
    const { signal } = request;
    return modulation.run(
      { steps: scheduler.timesteps.length },
      this.#use(modulation.name, signal),
      (program) => modulations(program, inputs, conditionings, signal),
    );
  }

  async #decode(
    request: FluxRequest,
    options: FluxGenerateOptions,
    packed: Float32Array,
  ): Promise<PipelineImage[]> {
    const { stages: { decode }, components: { vae } } = this.#parts;
    const { sizes, images, signal } = request;
    const length = packed.length / images;
    const pictures: PipelineImage[] = [];
    const latentSides = { height: 2 * sizes.rows, width: 2 * sizes.columns };
    await decode.run(latentSides, this.#use(decode.name, signal), async (program) => {
      for (let image = 0; image < images; image++) {
        const own = packed.subarray(image * length, (image + 1) * length);
        program.write("latents", unscaleLatents(unpackLatents(own, sizes), vae.model.config));
        await program.run({ signal });
        const decoded = program.read("image");
        const [height, width] = decoded.shape;
        const text = imageText(request, options, image);
        pictures.push(new PipelineImage(width, height, quantizePixels(decoded), text));
      }
    });
    return pictures;
  }

  #output(
    request: FluxRequest,
    packed: Float32Array,
    images: readonly PipelineImage[],
    planned: readonly PlannedStage[],
  ): FluxPipelineOutput {
    const { backend, clock, components: { vae } } = this.#parts;
    const { sizes, seed } = request;
    const shape = [request.images, sizes.tokens, packed.length / request.images / sizes.tokens];
    const side = 2 * vae.model.scaleFactor;
    return {
      images,
      latents: HostTensor.fromFloat32(packed, shape),
      seed,
      width: sizes.columns * side,
      height: sizes.rows * side,
      timings: clock.take(),
      planHash: combinedHash(planned.map(({ plan }) => plan.hash)),
      memory: this.#memory(planned),
      backendMemory: backend.memory(),
    };
  }

  /** Stored and resident as planned; the peak as the backend measured it. */
  #memory(planned: readonly PlannedStage[]): MemoryReport {
    const { resident } = plannedMemory(planned);
    return { stored: this.storedBytes, resident, peak: this.#parts.backend.memory().peak };
  }
}

function runSizes(request: FluxRequest): FluxSizes {
  const { sizes, textTokens, maxSequenceLength, numInferenceSteps: steps } = request;
  return { rows: sizes.rows, columns: sizes.columns, textTokens, maxSequenceLength, steps };
}

/** What a PNG tells of its making; nothing that differs between machines. */
function imageText(
  request: FluxRequest,
  options: FluxGenerateOptions,
  image: number,
): Record<string, string> {
  const { positive, seed, numInferenceSteps, guidanceScale, trueCfgScale } = request;
  const prompt = positive.kind === "text"
    ? positive.clip[Math.floor(image / request.imagesPerPrompt)]
    : undefined;
  const parameters = {
    prompt,
    prompt2: options.prompt2,
    negativePrompt: request.negative ? options.negativePrompt : undefined,
    seed: typeof seed === "bigint"
      ? seed.toString()
      : Array.isArray(seed)
      ? `${seed[image]}`
      : seed,
    image,
    numInferenceSteps,
    guidanceScale,
    trueCfgScale,
  };
  return { Software: "halftone", parameters: asciiJson(parameters) };
}

function checkOptions(options: FluxPipelineOptions): void {
  const unknown = Object.keys(options).find((key) =>
    !(PIPELINE_OPTIONS as readonly string[]).includes(key)
  );
  if (unknown !== undefined) {
    throw invalidOption(unknown, "an unknown option", PIPELINE_OPTIONS.join(", "));
  }
  const { dtype } = options;
  if (dtype !== undefined && !WEIGHT_DTYPES.includes(dtype)) {
    throw invalidOption("dtype", dtype, WEIGHT_DTYPES.join(", "));
  }
}

function warningHandler({ onWarning }: FluxPipelineOptions): (message: string) => void {
  return onWarning ?? ((message) => console.warn(message));
}

function invalidOption(field: string, found: unknown, expected: string): HalftoneError {
  const detail = { field, found, expected };
  return new HalftoneError("invalid_argument", "Cannot open a pipeline with this option", detail);
}

function makeBackend(options: FluxPipelineOptions): Promise<Backend> {
  const { threads, strict, residentWeightBytes } = options;
  const backend = typeof options.backend === "string" ? options.backend : undefined;
  return createBackend({ backend, threads, strict, residentWeightBytes });
}

/** Weights of the text encoders and of the modulation stay after use only where all weights fit. */
function keepPolicy(
  components: FluxComponents,
  backend: Backend,
  options: FluxPipelineOptions,
): KeepPolicy {
  const bytes = fluxComponentList(components)
    .reduce((sum, { weights }) => sum + weights.memory().resident, 0);
  const fits = bytes <= backend.limits.residentWeightBytes;
  return {
    textEncoders: options.keepTextEncoders ?? fits,
    modulation: options.keepModulation ?? fits,
  };
}
