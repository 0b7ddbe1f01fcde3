/** Writing a model that was opened from a single file: as one file again, or as a folder. */

import { HalftoneError } from "../errors.ts";
import type { Checkpoint } from "../io/checkpoint.ts";
import type { Config } from "../io/config.ts";
import { quantizeOpenCheckpoint, writeSingleFile } from "../io/quantize_checkpoint.ts";
import { quantizeToGguf } from "../io/quantize_gguf.ts";
import type { WeightsBaseName } from "../io/weight_files.ts";
import { copyFile, type NamedTensor, writeCheckpoint, writeJson } from "../io/write_checkpoint.ts";
import { GGUFQuantizationConfig } from "../quantization/gguf_config.ts";
import type { ModelModules } from "../quantization/quantizer.ts";
import { castWeight, denseDType, libraryOf, type WeightDType } from "../quantization/weights.ts";
import { joinPath, makeFolder } from "../runtime/files.ts";
import { ggufFileOf } from "./gguf_file.ts";
import type { OpenedModel, PretrainedModel } from "./pretrained_model.ts";

/** Options of a model's `savePretrained`. */
export interface SaveModelOptions {
  /** Bytes per weight file of a folder; 10 GB unless given. */
  readonly maxShardSize?: number;
  /** Ends saving, with error `aborted`; nothing is left under a final name. */
  readonly signal?: AbortSignal;
}

/** What saving must know of a class. */
export interface SavableModel extends ModelModules {
  isLinearWeight(name: string): boolean;
  readonly keepInFloat32?: readonly string[];
}

/** Writes a model as `PretrainedModel.savePretrained` says. */
export async function saveModel(
  model: PretrainedModel,
  opened: OpenedModel,
  path: string,
  options: SaveModelOptions,
): Promise<void> {
  if (path.endsWith(".gguf")) await saveGguf(opened, path, options);
  else if (path.endsWith(".safetensors")) await saveSafetensors(model, opened, path, options);
  else await saveFolder(model, opened, path, options);
}

async function saveGguf(
  { checkpoint, weights, dtype, file }: OpenedModel,
  path: string,
  { signal }: SaveModelOptions,
): Promise<void> {
  const { quantizationConfig: config, preQuantized } = weights;
  if (config !== null && !(config instanceof GGUFQuantizationConfig)) {
    throw notThisFormat(file, config.quantMethod, "a dense model, or one in GGUF's types");
  }
  const { architecture, checkpoint: named } = ggufFileOf(checkpoint);
  // Without a type all tensors keep theirs, blocks included.
  const quantType = preQuantized ? undefined : config?.quantType ?? undefined;
  await quantizeToGguf(named, path, { quantType, architecture, dtype, signal });
}

async function saveSafetensors(
  model: PretrainedModel,
  opened: OpenedModel,
  path: string,
  { signal }: SaveModelOptions,
): Promise<void> {
  const { quantizationConfig } = opened.weights;
  if (quantizationConfig !== null) {
    throw notThisFormat(opened.file, quantizationConfig.quantMethod, "a dense model");
  }
  const checkpoint = model.asSingleFile(opened.checkpoint);
  const { dtype } = opened;
  const tensors = roundedTensors(model, checkpoint, { dtype, signal });
  await writeSingleFile(path, tensors, { format: "pt" });
}

/** A component's folder, as the pipelines of Diffusers have it. */
export async function saveFolder(
  model: SavableModel,
  opened: OpenedModel,
  folder: string,
  { maxShardSize, signal }: SaveModelOptions,
): Promise<void> {
  const { file, config, checkpoint, dtype, weights } = opened;
  const { quantizationConfig, preQuantized, isChanged, isDequantized } = weights;
  const baseName = baseNameOf(config);
  if (quantizationConfig instanceof GGUFQuantizationConfig) {
    await makeFolder(folder);
    const path = joinPath(folder, `${baseName}.gguf`);
    if (preQuantized) await copyFile(file, path);
    else await quantizeInto(path, model, opened, quantizationConfig, signal);
    return await writeJson(joinPath(folder, "config.json"), config);
  }
  if (quantizationConfig !== null && isChanged) {
    await quantizeOpenCheckpoint(checkpoint, config, folder, {
      quantizationConfig,
      linearNames: (name) => model.isLinearWeight(name),
      keepInFloat32: model.keepInFloat32,
      modules: model,
      dtype,
      maxShardSize,
      signal,
    });
    return;
  }
  if (isDequantized) {
    await writeCheckpoint(folder, config, weights.dense(), { baseName, maxShardSize });
    return;
  }
  const written = { ...config, ...storedQuantization(opened) };
  const tensors = roundedTensors(model, checkpoint, { dtype, keep: preQuantized, signal });
  const library = preQuantized ? libraryFiles(opened) : {};
  await writeCheckpoint(folder, written, tensors, { baseName, maxShardSize, ...library });
}

/** Under the class's own names, because a folder has its config.json. */
async function quantizeInto(
  path: string,
  model: SavableModel,
  { checkpoint, dtype }: OpenedModel,
  { quantType }: GGUFQuantizationConfig,
  signal: AbortSignal | undefined,
): Promise<void> {
  const linearNames = (name: string): boolean => model.isLinearWeight(name);
  const { architecture } = ggufFileOf(checkpoint);
  const options = { quantType: quantType ?? undefined, architecture, linearNames, dtype, signal };
  await quantizeToGguf(checkpoint, path, options);
}

/** What config.json says of weights that stay as they were read. */
function storedQuantization({ weights: { preQuantized, quantizer } }: OpenedModel): Config {
  if (!preQuantized || quantizer === null) return {};
  return { quantization_config: quantizer.configless ? undefined : quantizer.config.toDict() };
}

/** What their library keeps in the files' headers and beside them. */
function libraryFiles({ checkpoint, weights: { quantizer } }: OpenedModel) {
  const stateFile = quantizer?.stateFile?.bind(quantizer);
  const added = stateFile ? quantizer?.fileMetadata?.([]) : {};
  return { metadata: { format: "pt", ...checkpoint.metadata, ...added }, stateFile };
}

/** How dense tensors are written. */
interface Rounding {
  readonly dtype?: WeightDType;
  /** Every tensor as it is stored, because a method made them. */
  readonly keep?: boolean;
  readonly signal?: AbortSignal;
}

/** All tensors of a checkpoint, rounded as they are when a model loads them. */
export async function* roundedTensors(
  { keepInFloat32 }: SavableModel,
  checkpoint: Checkpoint,
  { dtype, keep = false, signal }: Rounding,
): AsyncGenerator<NamedTensor> {
  for (const entry of checkpoint.entries.values()) {
    if (signal?.aborted) throw aborted(signal);
    const tensor = await checkpoint.read(entry.name, { packed: keep });
    const target = denseDType(entry.name, entry.dtype, { dtype, keepInFloat32 });
    yield { name: entry.name, tensor: keep ? tensor : castWeight(entry.name, tensor, target) };
  }
}

/** The stem of a component's weight files. */
export function baseNameOf(config: Config): WeightsBaseName {
  return libraryOf(config) === "diffusers" ? "diffusion_pytorch_model" : "model";
}

function notThisFormat(file: string, found: string, expected: string): HalftoneError {
  return new HalftoneError("unsupported", "Cannot save this model as such a file", {
    file,
    found,
    expected,
    remedy: "Save it as a folder, or dequantize the file first.",
  });
}

function aborted(signal: AbortSignal): HalftoneError {
  return new HalftoneError("aborted", "Cannot finish saving: aborted", {}, signal.reason);
}
