/** What FluxPipeline is given and what it gives. */

import type { MatmulPrecision } from "../backends/cuda/matmul_precision.ts";
import type { BackendName } from "../backends/select.ts";
import type { MemoryUse } from "../backends/backend.ts";
import type { FluxTransformer2DModel } from "../models/flux_transformer.ts";
import type { T5EncoderModel } from "../models/t5.ts";
import type { ActivationChoice } from "../quantization/activation_choice.ts";
import type { PipelineQuantizationConfig } from "../quantization/pipeline_config.ts";
import type { WeightDType } from "../quantization/weights.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { TorchGenerator } from "../tensor/random.ts";
import type { AttentionChoice } from "./attention_choice.ts";
import type { BackendHandle } from "./backend_handle.ts";
import type { PipelineImage } from "./image.ts";
import type { Timings } from "./stage_clock.ts";

/** Progress of loading weights. */
export interface LoadProgress {
  /** The stage whose weights are being loaded, such as "transformer.denoise". */
  readonly stage: string;
  /** Weights loaded, and weights to load. */
  readonly done: number;
  /** See `done`. */
  readonly total: number;
}

/** Options of `FluxPipeline.fromPretrained`. */
export interface FluxPipelineOptions {
  /** A backend (which stays yours to close) or the name of one to make; "auto" by default. */
  readonly backend?: BackendHandle | BackendName;
  /** Rounds dense weights to this type in memory; by default they stay as stored. */
  readonly dtype?: WeightDType;
  /** How to quantize components while they load. */
  readonly quantizationConfig?: PipelineQuantizationConfig;
  /**
   * How the linear layers of transformer and text_encoder_2 with quantized weights treat what they are
   * given: "float"; or rounded to "int8" or "float8" with a scale per token, in the layers of attention and
   * the MLPs (modulation and embedders, which see few rows, stay as they are). By default as the format
   * has it. Throws `invalid_argument` where no such weight is quantized.
   */
  readonly activations?: ActivationChoice;
  /**
   * How the transformer's attention multiplies queries and keys: "float" by default; "int8" rounds both to int8
   * with a scale per token and head, which is faster and costs some accuracy. The cuda backend refuses it with
   * `unsupported`.
   */
  readonly attention?: AttentionChoice;
  /**
   * A GGUF or safetensors file with the transformer's weights, under Diffusers' names or those of
   * single files, instead of the model folder's; the folder's config.json still says what it is. Or a
   * model of `FluxTransformer2DModel.fromSingleFile`, which stays yours to dispose of; `dtype` and
   * `quantizationConfig` do not concern it.
   */
  readonly transformer?: string | FluxTransformer2DModel;
  /** The same for T5, under Transformers' or llama.cpp's names. */
  readonly textEncoder2?: string | T5EncoderModel;
  /** Threads of a backend to make; all processors by default. */
  readonly threads?: number;
  /** The same bits on every machine: no relaxed arithmetic. */
  readonly strict?: boolean;
  /** Weight bytes a backend to make may hold in its own memory; the rest streams in. */
  readonly residentWeightBytes?: number;
  /**
   * How exactly a cuda backend to make computes large products: "float32" by default, "tensorfloat32",
   * "float16" or "bfloat16" in less time. The other backends compute in float32.
   */
  readonly matmulPrecision?: MatmulPrecision;
  /** Such as "fp16": weight files with that infix, where a component has them. */
  readonly variant?: string;
  /**
   * Whether the text encoders' weights stay after use; by default when all weights fit into half of
   * the machine's memory. Released ones are read (and quantized) again for the next picture.
   */
  readonly keepTextEncoders?: boolean;
  /** The same for the modulation weights, which no step needs. */
  readonly keepModulation?: boolean;
  /**
   * Decodes pictures larger than the autoencoder was made for tile by tile, in less memory; false by
   * default. The picture then differs a little, as in Diffusers after `enable_vae_tiling()`.
   */
  readonly vaeTiling?: boolean;
  /** Told what is odd but no error: a rounded size, a prompt that was cut; console.warn by default. */
  readonly onWarning?: (message: string) => void;
  /** Called after each weight that was loaded. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** Ends opening and loading, with error `aborted`. */
  readonly signal?: AbortSignal;
}

/** The state after a denoising step. */
export interface StepEvent {
  /** The step that was done, from 0. */
  readonly step: number;
  /** Steps of the run. */
  readonly steps: number;
  /** The scheduler's timestep, 1000 down to 0. */
  readonly timestep: number;
  /** Packed latents of all pictures, [pictures, tokens, features]; a copy. */
  readonly latents: HostTensor;
  /** Text states of all pictures, [pictures, text tokens, joint features]. */
  readonly promptEmbeds: HostTensor;
}

/** What a step callback may change. */
export interface StepChanges {
  /** Goes on from these packed latents. */
  readonly latents?: HostTensor;
  /** Goes on with these text states. */
  readonly promptEmbeds?: HostTensor;
  /** Skips the remaining steps. */
  readonly interrupt?: boolean;
}

/** A seed of the CPU generator: -2^63 to 2^64 - 1, of which the low 32 bits count. */
export type Seed = number | bigint;

/** Options of `FluxPipeline.generate`, with the names and defaults of Diffusers. */
export interface FluxGenerateOptions {
  /** The prompt, or one per picture of a batch. */
  readonly prompt?: string | readonly string[];
  /** Another prompt for T5; `prompt` by default. */
  readonly prompt2?: string | readonly string[];
  /** What to stay away from; takes part when `trueCfgScale` is above 1. */
  readonly negativePrompt?: string | readonly string[];
  /** Another negative prompt for T5; `negativePrompt` by default. */
  readonly negativePrompt2?: string | readonly string[];
  /** Text states in place of prompts, [batch, text tokens, joint features]. */
  readonly promptEmbeds?: HostTensor;
  /** Pooled text in place of prompts, [batch, pooled features]. */
  readonly pooledPromptEmbeds?: HostTensor;
  /** Text states in place of negative prompts. */
  readonly negativePromptEmbeds?: HostTensor;
  /** Pooled text in place of negative prompts. */
  readonly negativePooledPromptEmbeds?: HostTensor;
  /** Pixels; by default the autoencoder's own picture size. Rounded down to a whole token. */
  readonly width?: number;
  /** See `width`. */
  readonly height?: number;
  /** 28 by default. */
  readonly numInferenceSteps?: number;
  /** Noise levels in place of evenly spaced ones. */
  readonly sigmas?: readonly number[];
  /** 3.5 by default; without effect on models that were not distilled with it. */
  readonly guidanceScale?: number;
  /** 1 by default; above 1, with a negative prompt, every step runs twice. */
  readonly trueCfgScale?: number;
  /** Pictures of each prompt, 1 by default. */
  readonly numImagesPerPrompt?: number;
  /** One seed for the batch or one per picture; random by default. */
  readonly seed?: Seed | readonly Seed[];
  /** In place of seeds: one generator for the batch or one per picture. */
  readonly generator?: TorchGenerator | readonly TorchGenerator[];
  /** Packed latents to start from, [pictures, tokens, features]. */
  readonly latents?: HostTensor;
  /** Tokens of T5, padding included; 512 by default and at most. */
  readonly maxSequenceLength?: number;
  /** "png" or "pixels": pictures, which hold pixels and give PNG files; "latent": latents only. */
  readonly outputType?: "png" | "pixels" | "latent";
  /** Called after each step; what it returns replaces the state. */
  readonly onStep?: (event: StepEvent) => StepChanges | void | Promise<StepChanges | void>;
  /** Ends the run within a step, with error `aborted`. */
  readonly signal?: AbortSignal;
}

/** What `FluxPipeline.encodePrompt` is asked. */
export interface EncodePromptOptions {
  /** The prompt, or one per picture of a batch. */
  readonly prompt: string | readonly string[];
  /** Another prompt for T5; `prompt` by default. */
  readonly prompt2?: string | readonly string[];
  /** Tokens of T5, padding included; 512 by default and at most. */
  readonly maxSequenceLength?: number;
  /** Ends encoding, with error `aborted`. */
  readonly signal?: AbortSignal;
}

/** Encoded prompts, to be given to `generate` in place of the prompts. */
export interface PromptEmbeddings {
  /** Text states, [batch, text tokens, joint features]. */
  readonly promptEmbeds: HostTensor;
  /** Pooled text, [batch, pooled features]. */
  readonly pooledPromptEmbeds: HostTensor;
}

/** Bytes of a pipeline, as the backend holds them. */
export interface MemoryReport {
  /** Bytes of all weights as they are stored: codes, scales and tables included. */
  readonly stored: number;
  /** The most weight bytes held at once. */
  readonly resident: number;
  /** The most of all of it at once: weights, intermediates, scratch. */
  readonly peak: number;
  /** The most of it in a device's own memory at once, without weights that stream in; cuda only. */
  readonly devicePeak?: number;
}

/** What a run gives. */
export interface FluxPipelineOutput {
  /** The pictures; none for output type "latent". */
  readonly images: readonly PipelineImage[];
  /** Packed latents after the last step, [pictures, tokens, features]. */
  readonly latents: HostTensor;
  /** The seed or seeds used; null when generators were given. */
  readonly seed: Seed | readonly Seed[] | null;
  /** Pixels across. */
  readonly width: number;
  /** Pixels down. */
  readonly height: number;
  /** Seconds of this run, and of loading if that came before the first. */
  readonly timings: Timings;
  /** Hash over the hashes of all plans that took part. */
  readonly planHash: string;
  /** Bytes of the pipeline; the peak as the backend counted it. */
  readonly memory: MemoryReport;
  /** The backend's own count after the run. */
  readonly backendMemory: MemoryUse;
}
