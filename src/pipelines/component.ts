/** A model of a pipeline before any weight is loaded: its config and what its checkpoint holds. */

import { HalftoneError, namingFile } from "../errors.ts";
import type { Config } from "../io/config.ts";
import { type Checkpoint, openCheckpoint, readConfig } from "../io/checkpoint.ts";
import type { OpenedModel, PretrainedModel } from "../models/pretrained_model.ts";
import type { QuantizationConfig } from "../quantization/auto.ts";
import type { ModelModules } from "../quantization/quantizer.ts";
import {
  type ComponentWeights,
  openWeights,
  type OpenWeightsOptions,
  type WeightDType,
} from "../quantization/weights.ts";
import { joinPath } from "../runtime/files.ts";

/** What a component's class says of checkpoints. */
export interface ComponentModel extends ModelModules {
  /** Whether a checkpoint tensor is the weight of a linear layer. */
  isLinearWeight(name: string): boolean;
  /** Modules whose weights are never rounded to float16 nor quantized. */
  readonly keepInFloat32?: readonly string[];
  /** A checkpoint under the class's own names, when it may come under those of single files. */
  adaptCheckpoint?(checkpoint: Checkpoint): Checkpoint;
}

/** How components are opened. */
export interface ComponentOptions {
  /** Dense weights are rounded to it; by default they stay as stored. */
  readonly dtype?: WeightDType;
  /** Such as "fp16"; plain files stand in where a component has none. */
  readonly variant?: string;
  /** A GGUF or safetensors file to take the weights from, instead of the folder. */
  readonly file?: string;
  /** How to quantize it while it loads. */
  readonly quantizationConfig?: QuantizationConfig;
  /** Told when the checkpoint's own quantization wins over the caller's; console.warn by default. */
  readonly onWarning?: (message: string) => void;
}

/** A model and its checkpoint. */
export interface Component<Model extends ComponentModel = ComponentModel> {
  /** Such as "text_encoder_2". */
  readonly name: string;
  /** The folder it was opened from; a single file for a model that was opened before. */
  readonly path: string;
  /** The single file its weights come from; null when they are the folder's. */
  readonly file: string | null;
  readonly model: Model;
  /** The model's own weights, when it was opened before; it stays its owner's to dispose of. */
  readonly opened?: OpenedModel;
  /** The content of config.json. */
  readonly config: Config;
  readonly checkpoint: Checkpoint;
  readonly weights: ComponentWeights;
  /** Opens the weights anew, so that they are quantized or made dense in another way. */
  changeWeights(change: WeightsChange): Promise<void>;
  /** Shows the weights, now and after changes, as a function makes them of those that were opened. */
  showWeights(view: WeightsView): void;
  /** Closes the files. */
  close(): Promise<void>;
}

/** How the weights of a component shall be held from now on. */
export type WeightsChange = Pick<OpenWeightsOptions, "quantizationConfig" | "dequantizeTo">;

/** Weights as they are shown in place of those that were opened. */
export type WeightsView = (weights: ComponentWeights) => ComponentWeights;

/** Opens the component `name` of a model folder: reads its config and the headers of its weights. */
export async function openComponent<Model extends ComponentModel>(
  folder: string,
  name: string,
  createModel: (config: Config) => Model,
  options: ComponentOptions,
): Promise<Component<Model>> {
  const path = joinPath(folder, name);
  const { variant, dtype, quantizationConfig, onWarning, file = null } = options;
  const config = configFor(file, await readConfig(path));
  const model = namingFile(joinPath(path, "config.json"), () => createModel(config));
  const opened = await openCheckpoint(file ?? path, { variant, variantFallback: true });
  try {
    const checkpoint = model.adaptCheckpoint?.(opened) ?? opened;
    const open = weightsOpener(model, checkpoint, { config, dtype, onWarning });
    const parts = { name, path, file, model, config, checkpoint };
    return new OpenComponent(parts, open, await open({ quantizationConfig }));
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** Opens the weights of a model in whatever way is asked for. */
function weightsOpener(
  model: ComponentModel,
  checkpoint: Checkpoint,
  options: Pick<OpenWeightsOptions, "config" | "dtype" | "onWarning">,
): (change: WeightsChange) => Promise<ComponentWeights> {
  return (change) =>
    openWeights(checkpoint, {
      ...options,
      ...change,
      linearNames: (weight) => model.isLinearWeight(weight),
      keepInFloat32: model.keepInFloat32,
      modules: model,
    });
}

/** A model that was opened before, as a component. Throws `closed` when it has no weights any more. */
export function componentOf<Model extends PretrainedModel>(
  name: string,
  model: Model,
): Component<Model> {
  const { opened } = model;
  if (opened === null) {
    throw new HalftoneError("closed", "Cannot use a model without weights", { field: name });
  }
  const { file, config, checkpoint, dtype, weights } = opened;
  const parts = { name, path: file, file, model, opened, config, checkpoint };
  return new OpenComponent(parts, weightsOpener(model, checkpoint, { config, dtype }), weights);
}

type ComponentParts<Model extends ComponentModel> = Pick<
  Component<Model>,
  "name" | "path" | "file" | "model" | "opened" | "config" | "checkpoint"
>;

class OpenComponent<Model extends ComponentModel> implements Component<Model> {
  readonly name: string;
  readonly path: string;
  readonly file: string | null;
  readonly model: Model;
  readonly opened: OpenedModel | undefined;
  readonly config: Config;
  readonly checkpoint: Checkpoint;
  readonly #open: (change: WeightsChange) => Promise<ComponentWeights>;
  #opened: ComponentWeights;
  #view: WeightsView = (weights) => weights;
  #weights: ComponentWeights;

  constructor(
    parts: ComponentParts<Model>,
    open: (change: WeightsChange) => Promise<ComponentWeights>,
    weights: ComponentWeights,
  ) {
    this.name = parts.name;
    this.path = parts.path;
    this.file = parts.file;
    this.model = parts.model;
    this.opened = parts.opened;
    this.config = parts.config;
    this.checkpoint = parts.checkpoint;
    this.#open = open;
    this.#opened = this.#weights = weights;
  }

  get weights(): ComponentWeights {
    return this.#weights;
  }

  async changeWeights(change: WeightsChange): Promise<void> {
    this.#opened = await this.#open(change);
    this.#weights = this.#view(this.#opened);
  }

  showWeights(view: WeightsView): void {
    this.#view = view;
    this.#weights = view(this.#opened);
  }

  close(): Promise<void> {
    return this.opened ? Promise.resolve() : this.checkpoint.close();
  }
}

/** The folder's config; how the folder's own weights are quantized says nothing of a file's. */
function configFor(file: string | null, config: Config): Config {
  if (file === null) return config;
  const { quantization_config: _, ...rest } = config;
  return rest;
}
