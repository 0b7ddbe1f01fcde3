/** Models with their weights: what `fromSingleFile` opens and `savePretrained` writes. */

import { checkKnownOptions, HalftoneError, namingFile } from "../errors.ts";
import { type Checkpoint, openCheckpoint, readConfig, readJsonObject } from "../io/checkpoint.ts";
import type { Config } from "../io/config.ts";
import type { QuantizationConfig } from "../quantization/quantizer.ts";
import {
  checkWeightDType,
  type ComponentWeights,
  openWeights,
  type WeightDType,
} from "../quantization/weights.ts";
import { saveModel, type SaveModelOptions } from "./save_model.ts";

/** Options of `fromSingleFile`; the names are Diffusers' in camelCase. */
export interface FromSingleFileOptions {
  /**
   * What the model is: the content of a config.json, its path, or that of the folder it lies in. By
   * default it is read off the shapes of the tensors.
   */
  readonly config?: string | Readonly<Record<string, unknown>>;
  /** How to quantize the weights while they load; a file that is quantized already stays as it is. */
  readonly quantizationConfig?: QuantizationConfig;
  /** Rounds dense weights to this type in memory; by default they stay as stored. */
  readonly dtype?: WeightDType;
  /** Told when the file's own quantization wins over the one asked for; console.warn by default. */
  readonly onWarning?: (message: string) => void;
}

const KNOWN_OPTIONS = ["config", "quantizationConfig", "dtype", "onWarning"] as const;

/** What a model was opened from. */
export interface OpenedModel {
  /** The single file. */
  readonly file: string;
  /** The content of config.json, given or found. */
  readonly config: Config;
  /** Under the class's own names. */
  readonly checkpoint: Checkpoint;
  readonly weights: ComponentWeights;
  /** The type dense weights are rounded to. */
  readonly dtype?: WeightDType;
}

/** What opening a file must know of a class. */
export interface SingleFileClass<Model extends PretrainedModel> {
  create(config: Config): Model;
  /** The checkpoint under the class's own names. */
  adapt(checkpoint: Checkpoint): Checkpoint;
  /** The config of a checkpoint under these names. */
  configOf(checkpoint: Checkpoint): Config;
}

/** A model class; with weights when it was opened from a file. */
export abstract class PretrainedModel {
  #opened: OpenedModel | null = null;

  /**
   * Whether a checkpoint tensor is the weight of a linear layer.
   * @internal
   */
  abstract isLinearWeight(name: string): boolean;

  /**
   * Whether a linear layer, by the name of its weight, sees a row per token.
   * @internal
   */
  isTokenLayer(name: string): boolean {
    return this.isLinearWeight(name);
  }

  /**
   * Modules whose weights are never rounded to float16 nor quantized.
   * @internal
   */
  readonly keepInFloat32: readonly string[] = [];

  /**
   * What its _skip_layerwise_casting_patterns of Diffusers are.
   * @internal
   */
  readonly skipLayerwiseCastingPatterns: readonly string[] = [];

  /**
   * The Python class of a module ("" for the model).
   * @internal
   */
  abstract classOfModule(module: string): string | undefined;

  /**
   * Its LayerNorms, from the names of its tensors; not every class says them.
   * @internal
   */
  layerNorms?(tensors: Iterable<string>): readonly string[];

  /**
   * Few weights that matter to everything: they stay dense when a config has no skip list.
   * @internal
   */
  readonly outerModules: readonly string[] = [];

  /**
   * A checkpoint under the names that safetensors files of such a model have.
   * @internal
   */
  asSingleFile(checkpoint: Checkpoint): Checkpoint {
    return checkpoint;
  }

  /**
   * What it was opened from; null for a model without weights.
   * @internal
   */
  get opened(): OpenedModel | null {
    return this.#opened;
  }

  /** Bytes of all weights in their formats: codes, scales and tables included; 0 without weights. */
  getMemoryFootprint(): number {
    return this.#opened?.weights.memory().resident ?? 0;
  }

  /**
   * Writes the model as it is: when the path ends in `.gguf`, or (dense only) in `.safetensors`, as one
   * file under the names that ComfyUI and stable-diffusion.cpp read; else as a folder with config.json. Throws `unsupported`, `write_failed`, `aborted`, `closed`.
   */
  async savePretrained(path: string, options: SaveModelOptions = {}): Promise<void> {
    if (this.#opened === null) {
      throw new HalftoneError("closed", "Cannot save a model without weights");
    }
    await saveModel(this, this.#opened, path, options);
  }

  /** Closes the file. Pipelines that were given the model must be disposed of before. */
  async dispose(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    await opened?.checkpoint.close();
  }

  /** See `dispose`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  /**
   * Opens a file as a model of a class: reads headers, no weight.
   * @internal
   */
  static async openSingleFile<Model extends PretrainedModel>(
    file: string,
    modelClass: SingleFileClass<Model>,
    options: FromSingleFileOptions,
  ): Promise<Model> {
    checkKnownOptions(options, KNOWN_OPTIONS);
    const { dtype } = options;
    checkWeightDType(dtype);
    const opened = await openCheckpoint(file);
    try {
      const checkpoint = modelClass.adapt(opened);
      const config = await givenConfig(options.config) ?? modelClass.configOf(checkpoint);
      const model = namingFile(file, () => modelClass.create(config));
      const weights = await openWeights(checkpoint, {
        ...options,
        config,
        linearNames: (name) => model.isLinearWeight(name),
        keepInFloat32: model.keepInFloat32,
        modules: model,
      });
      model.#opened = { file, config, checkpoint, weights, dtype };
      return model;
    } catch (error) {
      await opened.close();
      throw error;
    }
  }
}

/** How the weights of a folder are quantized says nothing of a file's. */
async function givenConfig(config: FromSingleFileOptions["config"]): Promise<Config | undefined> {
  if (config === undefined) return undefined;
  const content = typeof config !== "string"
    ? config
    : config.endsWith(".json")
    ? await readJsonObject(config)
    : await readConfig(config);
  const { quantization_config: _, ...rest } = content;
  return rest;
}
