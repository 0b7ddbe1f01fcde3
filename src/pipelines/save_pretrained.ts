/** Saving a pipeline as it is in memory: quantized, or rounded to its dtype. */

import { joinPath, readTextFile } from "../runtime/files.ts";
import { quantizeCheckpoint } from "../io/quantize_checkpoint.ts";
import { type NamedTensor, writeCheckpoint, writeModelFolder } from "../io/write_checkpoint.ts";
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

function isChanged({ weights }: Component, { dtype }: SavedForm): boolean {
  if (weights.preQuantized) return false;
  return weights.quantizationConfig !== null || dtype !== undefined;
}

async function saveComponent(
  component: Component,
  folder: string,
  { dtype, variant }: SavedForm,
  { maxShardSize, signal }: SaveOptions,
): Promise<void> {
  const { model, path, config, weights: { quantizationConfig } } = component;
  if (quantizationConfig) {
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
  const baseName = libraryOf(config) === "diffusers" ? "diffusion_pytorch_model" : "model";
  const text = await readTextFile(joinPath(path, "config.json"));
  const spelled = parseJsonKeepingNumbers(text) as { readonly [key: string]: JsonValue };
  const tensors = roundedTensors(component, dtype, signal);
  await writeCheckpoint(folder, spelled, tensors, { baseName, maxShardSize });
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
