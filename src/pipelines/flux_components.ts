/** The parts of a FluxPipeline, opened from a model folder. */

import { HalftoneError, namingFile } from "../errors.ts";
import { readJsonObject } from "../io/checkpoint.ts";
import type { Config } from "../io/config.ts";
import { MODEL_INDEX, type ModelIndex, readModelIndex } from "../io/model_folder.ts";
import { AutoencoderKL } from "../models/autoencoder_kl.ts";
import { CLIPTextModel } from "../models/clip.ts";
import { FluxTransformer2DModel } from "../models/flux_transformer.ts";
import { T5EncoderModel } from "../models/t5.ts";
import type { PipelineQuantizationConfig } from "../quantization/pipeline_config.ts";
import type { WeightDType } from "../quantization/weights.ts";
import { joinPath } from "../runtime/files.ts";
import { FlowMatchEulerDiscreteScheduler } from "../schedulers/flow_match_euler.ts";
import { type Component, type ComponentModel, openComponent } from "./component.ts";
import type { PromptTokenizer } from "./text_encoding.ts";
import { loadClipTokenizer, loadT5Tokenizer } from "./tokenizer_files.ts";
import type { FluxTraits } from "./call_checks.ts";

/** A text encoder and the tokenizer that feeds it. */
export interface TextPart<Model extends ComponentModel> {
  readonly component: Component<Model>;
  readonly tokenizer: PromptTokenizer;
}

/** Everything a model folder holds for a FluxPipeline. */
export interface FluxComponents {
  /** The model folder. */
  readonly folder: string;
  readonly scheduler: FlowMatchEulerDiscreteScheduler;
  readonly transformer: Component<FluxTransformer2DModel>;
  readonly vae: Component<AutoencoderKL>;
  /** Null when the folder has no such encoder; prompts must then come as embeddings. */
  readonly clip: TextPart<CLIPTextModel> | null;
  readonly t5: TextPart<T5EncoderModel> | null;
}

/** How to open them. */
export interface OpenFluxOptions {
  readonly dtype?: WeightDType;
  readonly variant?: string;
  readonly quantizationConfig?: PipelineQuantizationConfig;
  /** Single files, by the component whose weights they hold. */
  readonly files?: Readonly<Record<string, string | undefined>>;
  readonly onWarning: (message: string) => void;
}

/** The classes each component may have. */
const KNOWN_CLASSES: Readonly<Record<string, readonly string[]>> = {
  scheduler: ["FlowMatchEulerDiscreteScheduler"],
  text_encoder: ["CLIPTextModel"],
  text_encoder_2: ["T5EncoderModel"],
  tokenizer: ["CLIPTokenizer", "CLIPTokenizerFast"],
  tokenizer_2: ["T5Tokenizer", "T5TokenizerFast"],
  transformer: ["FluxTransformer2DModel"],
  vae: ["AutoencoderKL"],
};

/** Reads configs, tokenizers and the headers of all weights; no weight is loaded. */
export async function openFluxComponents(
  folder: string,
  options: OpenFluxOptions,
): Promise<FluxComponents> {
  const index = await readModelIndex(folder);
  checkIndex(index, folder);
  warnUnknownComponents(index, options);
  const opened: Component[] = [];
  const open = async <Model extends ComponentModel>(
    name: string,
    createModel: (config: Config) => Model,
  ): Promise<Component<Model>> => {
    const quantizationConfig = options.quantizationConfig?.resolve(name);
    const { files, ...others } = options;
    const component = await openComponent(folder, name, createModel, {
      ...others,
      quantizationConfig,
      file: files?.[name],
    });
    opened.push(component);
    return component;
  };
  try {
    return await openParts(folder, index, open);
  } catch (error) {
    await Promise.all(opened.map((component) => component.close()));
    throw error;
  }
}

async function openParts(
  folder: string,
  index: ModelIndex,
  open: <Model extends ComponentModel>(
    name: string,
    createModel: (config: Config) => Model,
  ) => Promise<Component<Model>>,
): Promise<FluxComponents> {
  const schedulerFile = joinPath(folder, "scheduler", "scheduler_config.json");
  const schedulerConfig = await readJsonObject(schedulerFile);
  const scheduler = namingFile(
    schedulerFile,
    () => FlowMatchEulerDiscreteScheduler.fromConfig(schedulerConfig),
  );
  const transformer = await open("transformer", (config) => new FluxTransformer2DModel(config));
  const vae = await open("vae", (config) => new AutoencoderKL(config));
  checkFit(transformer, vae);
  const clip = index.components.get("text_encoder")
    ? {
      component: await open("text_encoder", (config) => new CLIPTextModel(config)),
      tokenizer: await loadClipTokenizer(joinPath(folder, "tokenizer")),
    }
    : null;
  const t5 = index.components.get("text_encoder_2")
    ? {
      component: await open("text_encoder_2", (config) => new T5EncoderModel(config)),
      tokenizer: await loadT5Tokenizer(joinPath(folder, "tokenizer_2")),
    }
    : null;
  checkEncoders(transformer, clip, t5);
  return { folder, scheduler, transformer, vae, clip, t5 };
}

/** Closes all files. */
export async function closeFluxComponents(components: FluxComponents): Promise<void> {
  await Promise.all(fluxComponentList(components).map((component) => component.close()));
}

/** The components with weights, in the order of a run. */
export function fluxComponentList(components: FluxComponents): Component[] {
  const { clip, t5, transformer, vae } = components;
  return [clip?.component, t5?.component, transformer, vae]
    .filter((component) => component !== undefined);
}

/** Bytes of all weights in their formats. */
export function storedBytes(components: FluxComponents): number {
  return fluxComponentList(components)
    .reduce((sum, { weights }) => sum + weights.memory().resident, 0);
}

/** What checks of a call must know of the models. */
export function fluxTraits(components: FluxComponents): FluxTraits {
  const { config } = components.transformer.model;
  return {
    inChannels: config.inChannels,
    jointAttentionDim: config.jointAttentionDim,
    pooledProjectionDim: config.pooledProjectionDim,
    scaleFactor: components.vae.model.scaleFactor,
    defaultSide: components.vae.model.config.sampleSize,
    hasTextEncoder: components.clip !== null,
    hasTextEncoder2: components.t5 !== null,
  };
}

function warnUnknownComponents(
  index: ModelIndex,
  { quantizationConfig, onWarning }: OpenFluxOptions,
): void {
  const unknown = quantizationConfig?.unknownComponents([...index.components.keys()]) ?? [];
  if (unknown.length === 0) return;
  onWarning(`The quantization config names parts the model has not: ${unknown.join(", ")}`);
}

function checkIndex(index: ModelIndex, folder: string): void {
  const file = joinPath(folder, MODEL_INDEX);
  if (index.className !== "FluxPipeline") {
    throw unsupportedClass(file, "_class_name", index.className, "FluxPipeline");
  }
  for (const [name, classes] of Object.entries(KNOWN_CLASSES)) {
    const found = index.components.get(name);
    if (found && !classes.includes(found.className)) {
      throw unsupportedClass(file, name, found.className, classes.join(" or "));
    }
  }
  for (const name of ["scheduler", "transformer", "vae"]) {
    if (index.components.get(name)) continue;
    const detail = {
      file,
      field: name,
      found: "nothing",
      expected: KNOWN_CLASSES[name].join(" or "),
    };
    throw new HalftoneError("invalid_config", "Cannot make a FluxPipeline without a part", detail);
  }
}

function unsupportedClass(
  file: string,
  field: string,
  found: string,
  expected: string,
): HalftoneError {
  return new HalftoneError("unsupported", "Cannot run a pipeline of this class", {
    file,
    field,
    found,
    expected,
  });
}

/** Latents must be able to go from the transformer into the autoencoder. */
function checkFit(
  transformer: Component<FluxTransformer2DModel>,
  vae: Component<AutoencoderKL>,
): void {
  const { inChannels, outChannels } = transformer.model.config;
  if (inChannels !== outChannels) {
    throw new HalftoneError("unsupported", "Cannot make pictures from text with this transformer", {
      file: transformer.path,
      field: "in_channels",
      found: inChannels,
      expected: `out_channels ${outChannels}; models with picture inputs come later`,
    });
  }
  const { latentChannels, outChannels: colors } = vae.model.config;
  if (inChannels !== 4 * latentChannels) {
    throw mismatch(vae.path, "latent_channels", latentChannels, `in_channels ${inChannels} / 4`);
  }
  if (colors !== 3) throw mismatch(vae.path, "out_channels", colors, "3: red, green, blue");
}

/** The encoders' features must be what the transformer is conditioned on. */
function checkEncoders(
  transformer: Component<FluxTransformer2DModel>,
  clip: TextPart<CLIPTextModel> | null,
  t5: TextPart<T5EncoderModel> | null,
): void {
  const { pooledProjectionDim, jointAttentionDim } = transformer.model.config;
  const pooled = clip?.component.model.config.hiddenSize ?? pooledProjectionDim;
  if (clip && pooled !== pooledProjectionDim) {
    const expected = `pooled_projection_dim ${pooledProjectionDim} of the transformer`;
    throw mismatch(clip.component.path, "hidden_size", pooled, expected);
  }
  const joint = t5?.component.model.config.dModel ?? jointAttentionDim;
  if (t5 && joint !== jointAttentionDim) {
    const expected = `joint_attention_dim ${jointAttentionDim} of the transformer`;
    throw mismatch(t5.component.path, "d_model", joint, expected);
  }
}

function mismatch(file: string, field: string, found: number, expected: string): HalftoneError {
  return new HalftoneError("invalid_config", "Cannot fit the parts of the pipeline together", {
    file: joinPath(file, "config.json"),
    field,
    found,
    expected,
  });
}
