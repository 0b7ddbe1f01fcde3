/** Saving a pipeline as it is in memory: quantized, or rounded to its dtype. */

import { joinPath, readTextFile } from "../runtime/files.ts";
import type { Config } from "../io/config.ts";
import { quantizeCheckpoint } from "../io/quantize_checkpoint.ts";
import { writeCheckpoint, writeModelFolder } from "../io/write_checkpoint.ts";
import type { OpenedModel } from "../models/pretrained_model.ts";
import { baseNameOf, roundedTensors, saveFolder } from "../models/save_model.ts";
import { type JsonValue, parseJsonKeepingNumbers } from "../quantization/python_json.ts";
import type { WeightDType } from "../quantization/weights.ts";
import type { Component } from "./component.ts";

/** Options of `FluxPipeline.savePretrained`. */
export interface SaveOptions {
  /** Bytes per weight file; 10 GB unless given. */
  readonly maxShardSize?: number;
  /** Ends saving, with error `aborted`; nothing is left behind. */
  readonly signal?: AbortSignal;
}

/** How the pipeline was opened, as far as saving must know. */
export interface SavedForm {
  /** The type dense weights were rounded to. */
  readonly dtype?: WeightDType;
  readonly variant?: string;
}

/**
 * Writes a model folder whose components are as they were loaded; what needs no change is copied.
 * The folder gets its name when it is whole. Throws `write_failed`, `aborted`.
 */
export async function saveModelFolder(
  source: string,
  destination: string,
  components: readonly Component[],
  form: SavedForm,
  options: SaveOptions,
): Promise<void> {
  const changed = components.filter((component) => isChanged(component, form));
  const names = changed.map(({ name }) => name);
  await writeModelFolder(source, destination, names, async (folder) => {
    for (const component of changed) {
      await saveComponent(component, joinPath(folder, component.name), form, options);
    }
  });
}

function isChanged({ weights, file }: Component, { dtype }: SavedForm): boolean {
  if (file !== null) return true;
  return weights.isChanged || (!weights.preQuantized && dtype !== undefined);
}

async function saveComponent(
  component: Component,
  folder: string,
  { dtype, variant }: SavedForm,
  { maxShardSize, signal }: SaveOptions,
): Promise<void> {
  const { model, path, config, file, weights } = component;
  if (file !== null) {
    const opened = component.opened ?? await openedFrom(file, component, dtype);
    return await saveFolder(model, { ...opened, weights }, folder, { maxShardSize, signal });
  }
  const { quantizationConfig, isDequantized } = weights;
  if (quantizationConfig) {
    const { keepInFloat32 } = model;
    const linearNames = (name: string): boolean => model.isLinearWeight(name);
    const quantization = { quantizationConfig, linearNames, keepInFloat32, modules: model };
    await quantizeCheckpoint(path, folder, {
      ...quantization,
      dtype,
      variant,
      maxShardSize,
      signal,
    });
    return;
  }
  const baseName = baseNameOf(config);
  const spelled = await spelledConfig(path);
  if (isDequantized) {
    const { quantization_config: _, ...dense } = spelled;
    await writeCheckpoint(folder, dense, weights.dense(), { baseName, maxShardSize });
    return;
  }
  const tensors = roundedTensors(model, component.checkpoint, { dtype, signal });
  await writeCheckpoint(folder, spelled, tensors, { baseName, maxShardSize });
}

/** A single file with the config of the folder, which does not say how the file's weights are quantized. */
async function openedFrom(
  file: string,
  { path, checkpoint, weights }: Component,
  dtype: WeightDType | undefined,
): Promise<OpenedModel> {
  const { quantization_config: _, ...config } = await spelledConfig(path);
  return { file, config, checkpoint, weights, dtype };
}

/** config.json as it is spelled. */
async function spelledConfig(path: string): Promise<Config> {
  const text = await readTextFile(joinPath(path, "config.json"));
  return parseJsonKeepingNumbers(text) as { readonly [key: string]: JsonValue };
}
