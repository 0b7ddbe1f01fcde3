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
import { checkPipelineConfig } from "../quantization/pipeline_config.ts";
import { memoryBytes } from "../runtime/system.ts";
import { type BackendHandle, backendOf } from "./backend_handle.ts";
import { throwIfAborted } from "./denoising.ts";
import type { Component, WeightsChange } from "./component.ts";
import {
  closeFluxComponents,
  fluxComponentList,
  type FluxComponents,
  fluxTraits,
  openFluxComponents,
  storedBytes,
} from "./flux_components.ts";
import type {
  EncodePromptOptions,
  FluxGenerateOptions,
  FluxPipelineOptions,
  FluxPipelineOutput,
  PromptEmbeddings,
} from "./flux_options.ts";
import { checkPipelineOptions } from "./flux_pipeline_options.ts";
import {
  describeRun,
  type FluxPlanOptions,
  type FluxPlanReport,
  type PipelineMemoryReport,
} from "./flux_plans.ts";
import { parseFluxRequest } from "./flux_request.ts";
import { encodeWith, type FluxParts, FluxRun } from "./flux_run.ts";
import {
  fluxStages,
  type MemoryPolicy,
  placeWeights,
  sizedStages,
  SMALLEST_SIZES,
  watchStages,
} from "./flux_stages.ts";
import { type CalibrationOptions, type InputAmax, InputCalibration } from "./input_calibration.ts";
import {
  type ApplyChange,
  ComponentModelHandle,
  type DequantizeOptions,
  type PipelineModel,
} from "./pipeline_model.ts";
import { parseEncodeRequest } from "./prompt_source.ts";
import { saveModelFolder, type SaveOptions } from "./save_pretrained.ts";
import { StageClock } from "./stage_clock.ts";
import { joinEmbeds } from "./text_encoding.ts";

/**
 * Pictures from text with a FLUX.1 model.
 *
 * ```ts
 * await using pipe = await FluxPipeline.fromPretrained("models/demo");
 * const prompt = "a red star above a blue house on a white background";
 * const { images } = await pipe.generate({ prompt, seed: 0 });
 * await images[0].save("star.png");
 * ```
 */
export class FluxPipeline {
  readonly #parts: FluxParts;
  readonly #options: FluxPipelineOptions;
  #queue: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  private constructor(parts: FluxParts, options: FluxPipelineOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /**
   * Opens a model folder (or the id of a Hub model) as Diffusers writes it. When all weights fit the
   * backend they are loaded here and stay; else each stage loads its own when its turn comes.
   *
   * Throws `model_not_found`, `missing_file`, `invalid_config`, `invalid_safetensors`, `invalid_gguf`,
   * `missing_tensor`, `tensor_shape_mismatch`, `non_finite_weight`, `unsupported`,
   * `backend_unavailable`, `invalid_argument`, `aborted`.
   */
  static async fromPretrained(
    model: string,
    options: FluxPipelineOptions = {},
  ): Promise<FluxPipeline> {
    const pipeline = await FluxPipeline.#open(model, options);
    try {
      pipeline.#placeWeights();
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
      pipeline.#placeWeights();
      return pipeline.plan({ width, height, numInferenceSteps, maxSequenceLength });
    } finally {
      await pipeline.dispose();
    }
  }

  /**
   * Runs a forward loop, such as a few prompts that are typical of what will be drawn, and gives the largest
   * |x| that the input of each linear layer of the transformer and the text encoders reached, by component
   * and module: ModelOpt's "max" calibration. Its ranges of a component are the `inputAmax` of an
   * `NVIDIAModelOptConfig`:
   *
   * ```ts
   * const amax = await FluxPipeline.calibrate("models/demo", {}, (pipe) => pipe.generate({ prompt, seed: 0 }));
   * const config = new NVIDIAModelOptConfig({
   *   quantType: "FP8_FP8",
   *   weightOnly: false,
   *   inputAmax: amax.transformer,
   * });
   * ```
   *
   * With `{ method: "percentile" }` the ranges are those of ModelOpt's histogram calibrator. The forward loop is
   * then called several times, each time with a new pipeline, and must make the same calls: give it seeds.
   *
   * The options are those of `fromPretrained`, and so are the errors; `invalid_argument` for a calibration
   * that cannot be meant, `unsupported` where an input is not finite.
   */
  static async calibrate(
    model: string,
    options: FluxPipelineOptions,
    forwardLoop: (pipeline: FluxPipeline) => Promise<unknown>,
    calibrationOptions: CalibrationOptions = {},
  ): Promise<InputAmax> {
    const calibration = new InputCalibration(calibrationOptions);
    do {
      await using pipeline = await FluxPipeline.#open(model, options);
      watchStages(pipeline.#parts.stages, calibration);
      pipeline.#placeWeights();
      await forwardLoop(pipeline);
    } while (calibration.next());
    return calibration.amax;
  }

  static async #open(model: string, options: FluxPipelineOptions): Promise<FluxPipeline> {
    checkPipelineOptions(options);
    const { signal, variant, dtype, backend: wanted, onProgress } = options;
    const onWarning = options.onWarning ?? ((message) => console.warn(message));
    throwIfAborted(signal);
    const quantizationConfig = checkPipelineConfig(options.quantizationConfig);
    const folder = await resolveModel(model, { signal, variant });
    const { activations, transformer, textEncoder2 } = options;
    const weights = { dtype, variant, quantizationConfig, activations };
    const opening = { ...weights, transformer, textEncoder2, onWarning };
    const components = await openFluxComponents(folder, opening);
    try {
      const ownsBackend = wanted === undefined || typeof wanted === "string";
      const backend = ownsBackend ? await makeBackend(options) : backendOf(wanted);
      const clock = new StageClock();
      const policy = memoryPolicy(components, backend, options);
      const { attention } = options;
      const stages = fluxStages(components, backend, clock, { ...policy, attention });
      const parts = { components, backend, ownsBackend, stages, clock, onWarning, onProgress };
      return new FluxPipeline(parts, options);
    } catch (error) {
      await closeFluxComponents(components);
      throw error;
    }
  }

  #placeWeights(): void {
    const { stages, backend } = this.#parts;
    placeWeights(stages, backend);
  }

  /** Loads every stage now when all of them keep their weights. */
  async #loadKept(): Promise<void> {
    const { stages, onProgress } = this.#parts;
    const list = sizedStages(stages, SMALLEST_SIZES);
    if (!list.every(({ stage }) => stage.keepsWeights)) return;
    const { signal } = this.#options;
    for (const { stage, sizes } of list) await stage.load(sizes, { signal, onProgress });
  }

  /** The backend that runs this pipeline. */
  get backend(): BackendHandle {
    return this.#parts.backend;
  }

  /** The folder the model was opened from. */
  get folder(): string {
    return this.#parts.components.folder;
  }

  /** Bytes of all weights in their formats: codes, scales and tables included. */
  get storedBytes(): number {
    return storedBytes(this.#parts.components);
  }

  /** The transformer. */
  get transformer(): PipelineModel {
    return this.#model(this.#parts.components.transformer);
  }

  /** The autoencoder. */
  get vae(): PipelineModel {
    return this.#model(this.#parts.components.vae);
  }

  /** CLIP; null when the model folder has none. */
  get textEncoder(): PipelineModel | null {
    const { clip } = this.#parts.components;
    return clip && this.#model(clip.component);
  }

  /** T5; null when the model folder has none. */
  get textEncoder2(): PipelineModel | null {
    const { t5 } = this.#parts.components;
    return t5 && this.#model(t5.component);
  }

  #model(component: Component): PipelineModel {
    const apply: ApplyChange = (component, change) =>
      this.#enqueue(() => this.#changeWeights(component, change));
    return new ComponentModelHandle(component, apply, this.#options.dtype);
  }

  async #changeWeights(component: Component, change: WeightsChange): Promise<void> {
    await component.changeWeights(change);
    for (const { stage } of sizedStages(this.#parts.stages, SMALLEST_SIZES)) {
      if (stage.component === component) await stage.reset();
    }
    this.#placeWeights();
  }

  /**
   * Makes all quantized models dense, with the values that their weights have; see
   * `PipelineModel.dequantize`. Throws `quantization_config` when none is quantized, `closed`.
   */
  async dequantize(options: DequantizeOptions = {}): Promise<void> {
    const models = [this.textEncoder, this.textEncoder2, this.transformer, this.vae];
    const quantized = models.filter((model) => model?.quantizationConfig);
    if (quantized.length === 0) await this.transformer.dequantize(options); // which says why not
    for (const model of quantized) await model!.dequantize(options);
  }

  /**
   * The bytes of the pipeline's weights by model, what a run of these sizes will need, and what the
   * backend holds now by its own count. Throws `invalid_argument`.
   */
  memoryReport(options: FluxPlanOptions = {}): PipelineMemoryReport {
    const { components, memory } = this.plan(options);
    return { components, ...memory, backend: this.#parts.backend.memory() };
  }

  /** The plans of a run of these sizes, and what it will need. Throws `invalid_argument`. */
  plan(options: FluxPlanOptions = {}): FluxPlanReport {
    this.#checkOpen();
    const { components, stages, backend } = this.#parts;
    return describeRun(components, stages, backend, options);
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
    return await this.#enqueue(() => new FluxRun(this.#parts, request, options).run());
  }

  /**
   * Encodes prompts once, to generate from them many times: give the result to `generate` in place of
   * the prompts. Throws `invalid_argument`, `aborted`.
   */
  async encodePrompt(options: EncodePromptOptions): Promise<PromptEmbeddings> {
    this.#checkOpen();
    const traits = fluxTraits(this.#parts.components);
    const { source, maxSequenceLength } = parseEncodeRequest(options, traits);
    const { signal } = options;
    throwIfAborted(signal);
    const [encoded] = await this.#enqueue(() =>
      encodeWith(this.#parts, [source], maxSequenceLength, signal)
    );
    return joinEmbeds(encoded);
  }

  /**
   * Writes the model as it was loaded (quantized, or rounded to `dtype`) into a new folder, in the
   * layout that Diffusers reads. Throws `write_failed`, also when something stands there already.
   */
  async savePretrained(folder: string, options: SaveOptions = {}): Promise<void> {
    this.#checkOpen();
    const { components } = this.#parts;
    const list = fluxComponentList(components);
    await this.#enqueue(() =>
      saveModelFolder(components.folder, folder, list, this.#options, options)
    );
  }

  /** Frees the weights, closes the files, and closes a backend that was made for this pipeline. */
  async dispose(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#queue;
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

  /** One call at a time: they share the scheduler, the clock and the backend's memory. */
  #enqueue<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(() => {
      this.#checkOpen();
      return action();
    });
    // A call that failed leaves its times to nobody.
    this.#queue = result.catch(() => void this.#parts.clock.take());
    return result;
  }
}

function makeBackend(options: FluxPipelineOptions): Promise<Backend> {
  const { threads, strict, residentWeightBytes, matmulPrecision, onWarning } = options;
  const backend = typeof options.backend === "string" ? options.backend : undefined;
  return createBackend({
    backend,
    threads,
    strict,
    residentWeightBytes,
    matmulPrecision,
    onWarning,
  });
}

/**
 * Weights of the text encoders and of the modulation stay after use only where all weights fit: on the
 * backend, or in half of the machine's memory, from where they stream in.
 */
function memoryPolicy(
  components: FluxComponents,
  backend: Backend,
  options: FluxPipelineOptions,
): MemoryPolicy {
  const machine = memoryBytes()?.total;
  const budget = machine === undefined ? backend.limits.residentWeightBytes : machine / 2;
  const fits = storedBytes(components) <= budget;
  return {
    keepTextEncoders: options.keepTextEncoders ?? fits,
    keepModulation: options.keepModulation ?? fits,
    vaeTiling: options.vaeTiling ?? false,
  };
}
