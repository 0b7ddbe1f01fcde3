/** A model of a pipeline before any weight is loaded: its config and what its checkpoint holds. */

import type { Config } from "../io/config.ts";
import { type Checkpoint, openCheckpoint, readConfig } from "../io/checkpoint.ts";
import type { QuantizationConfig } from "../quantization/auto.ts";
import { type ComponentWeights, openWeights, type WeightDType } from "../quantization/weights.ts";
import { joinPath } from "../runtime/files.ts";

/** What a component's class says of checkpoints. */
export interface ComponentModel {
  /** Whether a checkpoint tensor is the weight of a linear layer. */
  isLinearWeight(name: string): boolean;
  /** Modules whose weights are never rounded to float16 nor quantized. */
  readonly keepInFloat32?: readonly string[];
}

/** How components are opened. */
export interface ComponentOptions {
  /** Dense weights are rounded to it; by default they stay as stored. */
  readonly dtype?: WeightDType;
  /** Such as "fp16"; plain files stand in where a component has none. */
  readonly variant?: string;
  /** How to quantize it while it loads. */
  readonly quantizationConfig?: QuantizationConfig;
  /** Told when the checkpoint's own quantization wins over the caller's; console.warn by default. */
  readonly onWarning?: (message: string) => void;
}

/** A model and its checkpoint. */
export interface Component<Model extends ComponentModel = ComponentModel> {
  /** Such as "text_encoder_2". */
  readonly name: string;
  /** The folder it was opened from. */
  readonly path: string;
  readonly model: Model;
  /** The content of config.json. */
  readonly config: Config;
  readonly checkpoint: Checkpoint;
  readonly weights: ComponentWeights;
  /** Closes the files. */
  close(): Promise<void>;
}

/** Opens the component `name` of a model folder: reads its config and the headers of its weights. */
export async function openComponent<Model extends ComponentModel>(
  folder: string,
  name: string,
  createModel: (config: Config) => Model,
  options: ComponentOptions,
): Promise<Component<Model>> {
  const path = joinPath(folder, name);
  const config = await readConfig(path);
  const model = createModel(config);
  const { variant, dtype, quantizationConfig, onWarning } = options;
  const checkpoint = await openCheckpoint(path, { variant, variantFallback: true });
  try {
    const weights = await openWeights(checkpoint, {
      config,
      dtype,
      quantizationConfig,
      linearNames: (weight) => model.isLinearWeight(weight),
      keepInFloat32: model.keepInFloat32,
      onWarning,
    });
    const close = () => checkpoint.close();
    return { name, path, model, config, checkpoint, weights, close };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}
