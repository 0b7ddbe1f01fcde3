/** Saving a pipeline as it is in memory: quantized, or rounded to its dtype. */

import { HalftoneError } from "../errors.ts";
import { joinPath, makeFolder, readTextFile } from "../runtime/files.ts";
import type { Config } from "../io/config.ts";
import { quantizeCheckpoint } from "../io/quantize_checkpoint.ts";
import type { WeightsBaseName } from "../io/weight_files.ts";
import {
  copyFile,
  type NamedTensor,
  writeCheckpoint,
  writeJson,
  writeModelFolder,
} from "../io/write_checkpoint.ts";
import { type JsonValue, parseJsonKeepingNumbers } from "../quantization/python_json.ts";
import { castWeight, denseDType, libraryOf, type WeightDType } from "../quantization/weights.ts";
import type { Component } from "./component.ts";
import { throwIfAborted } from "./denoising.ts";

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
  if (weights.preQuantized) return false;
  return weights.quantizationConfig !== null || dtype !== undefined;
}

async function saveComponent(
  component: Component,
  folder: string,
  { dtype, variant }: SavedForm,
  { maxShardSize, signal }: SaveOptions,
): Promise<void> {
  const { model, path, config, file, weights: { quantizationConfig, preQuantized } } = component;
  if (file !== null && preQuantized) return await saveFile(file, component, folder);
  if (quantizationConfig) {
    if (file !== null) throw notSaved(file);
    const { keepInFloat32 } = model;
    const linearNames = (name: string): boolean => model.isLinearWeight(name);
    const quantization = { quantizationConfig, linearNames, keepInFloat32 };
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
  const tensors = roundedTensors(component, dtype, signal);
  const spelled = await spelledConfig(path, file);
  await writeCheckpoint(folder, spelled, tensors, { baseName, maxShardSize });
}

/** A quantized single file is copied as it is, beside the config that says what it is. */
async function saveFile(file: string, component: Component, folder: string): Promise<void> {
  const ending = file.slice(file.lastIndexOf("."));
  await makeFolder(folder);
  await copyFile(file, joinPath(folder, `${baseNameOf(component.config)}${ending}`));
  await writeJson(joinPath(folder, "config.json"), await spelledConfig(component.path, file));
}

function baseNameOf(config: Config): WeightsBaseName {
  return libraryOf(config) === "diffusers" ? "diffusion_pytorch_model" : "model";
}

/** config.json as it is spelled, without how the folder's weights were quantized when a file has others. */
async function spelledConfig(path: string, file: string | null): Promise<Config> {
  const text = await readTextFile(joinPath(path, "config.json"));
  const spelled = parseJsonKeepingNumbers(text) as { readonly [key: string]: JsonValue };
  if (file === null) return spelled;
  const { quantization_config: _, ...rest } = spelled;
  return rest;
}

function notSaved(file: string): HalftoneError {
  return new HalftoneError("unsupported", "Cannot save what was quantized while a file was read", {
    file,
    remedy: "Quantize the file itself, with `halftone quantize`.",
  });
}

async function* roundedTensors(
  { checkpoint, model }: Component,
  dtype: WeightDType | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<NamedTensor> {
  const { keepInFloat32 } = model;
  for (const entry of checkpoint.entries.values()) {
    throwIfAborted(signal);
    const tensor = await checkpoint.read(entry.name);
    const target = denseDType(entry.name, entry.dtype, { dtype, keepInFloat32 });
    yield { name: entry.name, tensor: castWeight(entry.name, tensor, target) };
  }
}
