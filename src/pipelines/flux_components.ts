/** The parts of a FluxPipeline, opened from a model folder. */

import { HalftoneError, invalidOption, namingFile } from "../errors.ts";
import { readJsonObject } from "../io/checkpoint.ts";
import type { Config } from "../io/config.ts";
import { MODEL_INDEX, type ModelIndex, readModelIndex } from "../io/model_folder.ts";
import { AutoencoderKL } from "../models/autoencoder_kl.ts";
import { CLIPTextModel } from "../models/clip.ts";
import { FluxTransformer2DModel } from "../models/flux_transformer.ts";
import type { PretrainedModel } from "../models/pretrained_model.ts";
import { T5EncoderModel } from "../models/t5.ts";
import {
  type ActivationChoice,
  nothingToRound,
  withActivations,
} from "../quantization/activation_choice.ts";
import type { PipelineQuantizationConfig } from "../quantization/pipeline_config.ts";
import type { WeightDType } from "../quantization/weights.ts";
import { joinPath } from "../runtime/files.ts";
import { FlowMatchEulerDiscreteScheduler } from "../schedulers/flow_match_euler.ts";
import { type Component, type ComponentModel, componentOf, openComponent } from "./component.ts";
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
  readonly activations?: ActivationChoice;
  /** Single files, or models that were opened from them, by the component whose weights they hold. */
  readonly transformer?: string | FluxTransformer2DModel;
  readonly textEncoder2?: string | T5EncoderModel;
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
    const { dtype, variant, onWarning } = options;
    const quantizationConfig = options.quantizationConfig?.resolve(name);
    const file = fileOf(name, options);
    const opening = { dtype, variant, onWarning, quantizationConfig, file };
    const component = await openComponent(folder, name, createModel, opening);
    opened.push(component);
    return component;
  };
  try {
    return await openParts(folder, index, open, options);
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
  options: OpenFluxOptions,
): Promise<FluxComponents> {
  const schedulerFile = joinPath(folder, "scheduler", "scheduler_config.json");
  const schedulerConfig = await readJsonObject(schedulerFile);
  const scheduler = namingFile(
    schedulerFile,
    () => FlowMatchEulerDiscreteScheduler.fromConfig(schedulerConfig),
  );
  const transformer = givenModel("transformer", FluxTransformer2DModel, options) ??
    await open("transformer", (config) => new FluxTransformer2DModel(config));
  const vae = await open("vae", (config) => new AutoencoderKL(config));
  checkFit(transformer, vae);
  const clip = index.components.get("text_encoder")
    ? {
      component: await open("text_encoder", (config) => new CLIPTextModel(config)),
      tokenizer: await loadClipTokenizer(joinPath(folder, "tokenizer")),
    }
    : null;
  const t5: FluxComponents["t5"] = index.components.get("text_encoder_2")
    ? {
      component: givenModel("text_encoder_2", T5EncoderModel, options) ??
        await open("text_encoder_2", (config) => new T5EncoderModel(config)),
      tokenizer: await loadT5Tokenizer(joinPath(folder, "tokenizer_2")),
    }
    : null;
  checkEncoders(transformer, clip, t5);
  return withChosenActivations({ folder, scheduler, transformer, vae, clip, t5 }, options);
}

/** The components with the caller's own treatment of activations, if there is any. */
function withChosenActivations(
  components: FluxComponents,
  { activations: choice }: OpenFluxOptions,
): FluxComponents {
  if (choice === undefined) return components;
  const { transformer, t5 } = components;
  const both = [transformer, t5?.component].filter((component) => component !== undefined);
  const isQuantized = both.some(({ weights }) => weights.quantizationConfig !== null);
  if (choice !== "float" && !isQuantized) throw nothingToRound(choice);
  for (const component of both) roundActivations(component, choice);
  return components;
}

function roundActivations(
  component: Component<PretrainedModel>,
  choice: ActivationChoice,
): void {
  const isTokenLayer = (name: string) => component.model.isTokenLayer(name);
  component.showWeights((weights) => {
    return { ...weights, catalog: withActivations(weights.catalog, choice, isTokenLayer) };
  });
}

/** What the options give instead of a component's own weights. */
function givenFor(name: string, options: OpenFluxOptions): string | PretrainedModel | undefined {
  if (name === "transformer") return options.transformer;
  return name === "text_encoder_2" ? options.textEncoder2 : undefined;
}

function fileOf(name: string, options: OpenFluxOptions): string | undefined {
  const given = givenFor(name, options);
  return typeof given === "string" ? given : undefined;
}

/** A model that was opened before, in place of the folder's. */
function givenModel<Model extends PretrainedModel>(
  name: string,
  modelClass: abstract new (config: Config) => Model,
  options: OpenFluxOptions,
): Component<Model> | null {
  const given = givenFor(name, options);
  if (given === undefined || typeof given === "string") return null;
  if (!(given instanceof modelClass)) {
    const option = name === "transformer" ? "transformer" : "textEncoder2";
    throw invalidOption(option, typeof given, `a file, or a ${modelClass.name}`);
  }
  if (options.quantizationConfig?.resolve(name) !== undefined) {
    options.onWarning(`The quantization config does not concern the ${name} that was given`);
  }
  return componentOf(name, given);
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
      file: configFileOf(transformer),
      field: "in_channels",
      found: inChannels,
      expected: `out_channels ${outChannels}; models with picture inputs come later`,
    });
  }
  const { latentChannels, outChannels: colors } = vae.model.config;
  if (inChannels !== 4 * latentChannels) {
    throw mismatch(vae, "latent_channels", latentChannels, `in_channels ${inChannels} / 4`);
  }
  if (colors !== 3) throw mismatch(vae, "out_channels", colors, "3: red, green, blue");
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
    throw mismatch(clip.component, "hidden_size", pooled, expected);
  }
  const joint = t5?.component.model.config.dModel ?? jointAttentionDim;
  if (t5 && joint !== jointAttentionDim) {
    const expected = `joint_attention_dim ${jointAttentionDim} of the transformer`;
    throw mismatch(t5.component, "d_model", joint, expected);
  }
}

/** Where a component's config comes from. */
function configFileOf({ path, opened }: Component): string {
  return opened === undefined ? joinPath(path, "config.json") : path;
}

function mismatch(
  component: Component,
  field: string,
  found: number,
  expected: string,
): HalftoneError {
  return new HalftoneError("invalid_config", "Cannot fit the parts of the pipeline together", {
    file: configFileOf(component),
    field,
    found,
    expected,
  });
}
