/**
 * Quantizing a checkpoint into another one in its library's own layout, and back. One weight is in
 * memory at a time.
 */

import { HalftoneError } from "../errors.ts";
import { denseWeight } from "../quantization/dense_weight.ts";
import { GGUFQuantizationConfig } from "../quantization/gguf_config.ts";
import { LayerwiseCastingConfig } from "../quantization/layerwise_casting_config.ts";
import { createPause } from "../quantization/pause.ts";
import { type JsonValue, parseJsonKeepingNumbers } from "../quantization/python_json.ts";
import type {
  ModelModules,
  QuantizationConfig,
  Quantizer,
  WrittenTensor,
} from "../quantization/quantizer.ts";
import {
  castWeight,
  checkFloat16,
  computable,
  denseDType,
  libraryOf,
  quantizedInfo,
  resolveQuantizer,
  type WeightDType,
} from "../quantization/weights.ts";
import {
  folderOf,
  joinPath,
  nameOf,
  readTextFile,
  remove,
  renamePath,
  statPath,
} from "../runtime/files.ts";
import { hasSharedWorkers } from "../runtime/workers.ts";
import { ScratchBytes } from "../tensor/scratch_bytes.ts";
import { isFloat } from "../tensor/dtype.ts";
import { type Checkpoint, openCheckpoint, readConfig, type TensorEntry } from "./checkpoint.ts";
import type { WriteCheckpointOptions, WrittenCheckpoint } from "./checkpoint_writer.ts";
import type { Config } from "./config.ts";
import { quantizeGgufFolder } from "./quantize_gguf.ts";
import { type NamedTensor, writeCheckpoint } from "./write_checkpoint.ts";

/** What both directions may be told. */
export interface ConvertOptions {
  /** Float weights are rounded to it (before quantizing); each keeps its own type without it. */
  readonly dtype?: WeightDType;
  /** The infix of the source's weight files, such as "fp16". */
  readonly variant?: string;
  /** Bytes per file of a folder; 10 GB unless given. */
  readonly maxShardSize?: number;
  readonly signal?: AbortSignal;
  /** Called after each tensor of the source. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** How to quantize. */
export interface QuantizeOptions extends ConvertOptions {
  readonly quantizationConfig: QuantizationConfig;
  /** Which tensors are weights of linear layers; every 2-D `*.weight` unless given. */
  readonly linearNames?: (name: string) => boolean;
  /** Modules the model class keeps in float32; T5: ["wo"]. */
  readonly keepInFloat32?: readonly string[];
  /** What the model class says of its modules; without it no module is skipped by default. */
  readonly modules?: ModelModules;
}

/**
 * Quantizes a component folder (weights and config.json) into the folder `destination`, or one
 * safetensors file into the file `destination`. Throws `quantization_config` when the source is
 * quantized already, and what reading and writing throw.
 */
export async function quantizeCheckpoint(
  source: string,
  destination: string,
  options: QuantizeOptions,
): Promise<WrittenCheckpoint> {
  const { quantizationConfig } = options;
  if (quantizationConfig instanceof GGUFQuantizationConfig) {
    return await quantizeGgufFolder(source, destination, { ...options, quantizationConfig });
  }
  return await convert(
    source,
    destination,
    options,
    (checkpoint, config) => quantization(checkpoint, config, options),
  );
}

/**
 * The same for a checkpoint that is open and stays so, with the content of its config.json, into a
 * folder; not for GGUF. Throws as `quantizeCheckpoint` does.
 */
export async function quantizeOpenCheckpoint(
  checkpoint: Checkpoint,
  config: Config,
  folder: string,
  options: QuantizeOptions,
): Promise<WrittenCheckpoint> {
  const conversion = quantization(checkpoint, config, options);
  return await writeFolder(folder, checkpoint, config, conversion, options);
}

function quantization(
  checkpoint: Checkpoint,
  config: Config,
  options: QuantizeOptions,
): Conversion {
  const { quantizer, preQuantized } = resolveQuantizer(checkpoint, {
    ...options,
    config,
    onWarning: () => {},
  });
  if (!quantizer || (preQuantized && !quantizer.quantizesRest)) {
    throw alreadyQuantized(checkpoint.path);
  }
  refuseGguf(quantizer.config);
  const isSaid = quantizer.configless || (preQuantized && config.quantization_config !== undefined);
  return {
    config: isSaid ? {} : { quantization_config: quantizer.config.toDict() },
    metadata: preQuantized
      ? { format: "pt", ...checkpoint.metadata }
      : writtenMetadata(checkpoint, quantizer, options),
    stateFile: quantizer.stateFile?.bind(quantizer),
    encode: (entry, scratch) => quantizeTensor(entry, { checkpoint, quantizer, options, scratch }),
  };
}

/**
 * The reverse: weights become dense in `dtype`, or in the type they were quantized from, and config.json
 * loses its quantization_config. Throws `quantization_config` when the source is not quantized.
 */
export async function dequantizeCheckpoint(
  source: string,
  destination: string,
  options: ConvertOptions = {},
): Promise<WrittenCheckpoint> {
  return await convert(source, destination, options, (checkpoint, config) => {
    const { quantizer } = resolveQuantizer(checkpoint, { config });
    if (!quantizer) throw notQuantized(source);
    return {
      config: { quantization_config: undefined },
      metadata: quantizer.fileMetadata ? { format: "pt" } : undefined,
      encode: (entry) => dequantizeTensor(entry, checkpoint, quantizer, options),
    };
  });
}

/** Whether a component folder or file is quantized. */
export async function isQuantizedCheckpoint(path: string): Promise<boolean> {
  const config = await isFolder(path) ? await readConfig(path) : {};
  const checkpoint = await openCheckpoint(path, { variantFallback: true });
  try {
    return resolveQuantizer(checkpoint, { config }).preQuantized;
  } finally {
    await checkpoint.close();
  }
}

interface Conversion {
  /** Keys to change in config.json; undefined removes one. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The metadata of the files; a lone file keeps the source's when absent. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The library's own file beside the weights of a folder. */
  readonly stateFile?: Quantizer["stateFile"];
  /** What becomes of a tensor of the source; it may lie in scratch memory. */
  encode(entry: TensorEntry, scratch: ScratchBytes): Promise<readonly NamedTensor[]>;
}

async function convert(
  source: string,
  destination: string,
  options: ConvertOptions,
  prepare: (checkpoint: Checkpoint, config: Config) => Conversion,
): Promise<WrittenCheckpoint> {
  const folder = await isFolder(source);
  const config = folder ? await readConfig(source) : {};
  const checkpoint = await openCheckpoint(source, {
    variant: options.variant,
    variantFallback: true,
  });
  try {
    const conversion = prepare(checkpoint, config);
    if (folder) {
      const spelled = await spelledConfig(source);
      return await writeFolder(destination, checkpoint, spelled, conversion, options);
    }
    const metadata = conversion.metadata ?? { format: "pt", ...checkpoint.metadata };
    const tensors = convertAll(checkpoint, conversion, options);
    return await writeSingleFile(destination, tensors, metadata);
  } finally {
    await checkpoint.close();
  }
}

function writeFolder(
  folder: string,
  checkpoint: Checkpoint,
  config: Config,
  conversion: Conversion,
  options: ConvertOptions,
): Promise<WrittenCheckpoint> {
  const tensors = convertAll(checkpoint, conversion, options);
  const { metadata, stateFile } = conversion;
  const changed = { ...config, ...conversion.config };
  return writeCheckpoint(folder, changed, tensors, {
    ...writeOptionsOf(config, options),
    metadata,
    stateFile,
  });
}

async function* convertAll(
  checkpoint: Checkpoint,
  conversion: Conversion,
  options: ConvertOptions,
): AsyncGenerator<NamedTensor> {
  let done = 0;
  const scratch = new ScratchBytes(); // whoever writes is done with a tensor when the next one is asked for
  for (const entry of checkpoint.entries.values()) {
    throwIfAborted(options.signal);
    scratch.reset();
    yield* await conversion.encode(entry, scratch);
    options.onProgress?.(++done, checkpoint.entries.size);
  }
}

interface Quantization {
  readonly checkpoint: Checkpoint;
  readonly quantizer: Quantizer;
  readonly options: QuantizeOptions;
  readonly scratch: ScratchBytes;
}

async function quantizeTensor(
  entry: TensorEntry,
  { checkpoint, quantizer, options, scratch }: Quantization,
): Promise<readonly NamedTensor[]> {
  const { name } = entry;
  if (quantizer.quantizesRest && belongsToQuantized(name, checkpoint, quantizer)) {
    return [{ name, tensor: await checkpoint.read(name, { packed: true }) }];
  }
  const linearNames = options.linearNames ?? isMatrixWeight(entry);
  if (!quantizedInfo(name, entry, quantizer, linearNames, options.dtype)) {
    const { name, tensor } = await convertDense(entry, checkpoint, options);
    const storage = isFloat(tensor.dtype) ? quantizer.storageType?.(name, tensor.shape) : null;
    return [{ name, tensor: tensor.cast(storage ?? tensor.dtype) }];
  }
  const dense = await checkpoint.read(name, { shared: hasSharedWorkers(), scratch });
  const rounded = castWeight(name, dense, options.dtype ?? computable(dense.dtype));
  return quantizer.write(name, await quantizer.quantize(name, rounded, createPause({ scratch })));
}

/** GGUF's blocks have no place in safetensors, nor float8 in GGUF. */
function refuseGguf(config: QuantizationConfig): void {
  const isCast = config instanceof LayerwiseCastingConfig;
  if (!isCast || !(config.quantizationConfig instanceof GGUFQuantizationConfig)) return;
  throw new HalftoneError("unsupported", "Cannot save a GGUF model that was cast", {
    field: "quantizationConfig",
    found: config.quantMethod,
    expected: "GGUF or layerwise casting alone",
  });
}

/** Whether a tensor is a quantized weight of the source, or stands beside one. */
function belongsToQuantized(name: string, checkpoint: Checkpoint, quantizer: Quantizer): boolean {
  const weight = quantizer.weightOf?.(name, checkpoint) ?? name;
  return quantizer.isCompanion(name, checkpoint) || quantizer.isStored(weight, checkpoint);
}

/** What the method's library writes into the header; undefined when it writes nothing of its own. */
function writtenMetadata(
  checkpoint: Checkpoint,
  quantizer: Quantizer,
  options: QuantizeOptions,
): Readonly<Record<string, string>> | undefined {
  if (!quantizer.fileMetadata) return undefined;
  const tensors = [...checkpoint.entries.values()].map((entry): WrittenTensor => {
    const { name, shape } = entry;
    const linearNames = options.linearNames ?? isMatrixWeight(entry);
    const info = quantizedInfo(name, entry, quantizer, linearNames, options.dtype);
    const dtype = options.dtype ?? computable(entry.dtype);
    return { name, shape, dtype, quantized: info !== null };
  });
  return { format: "pt", ...quantizer.fileMetadata(tensors) };
}

async function dequantizeTensor(
  entry: TensorEntry,
  checkpoint: Checkpoint,
  quantizer: Quantizer,
  options: ConvertOptions,
): Promise<readonly NamedTensor[]> {
  if (quantizer.isCompanion(entry.name, checkpoint)) return [];
  const name = quantizer.weightOf?.(entry.name, checkpoint) ?? entry.name;
  if (!quantizer.isStored(name, checkpoint)) {
    return [await convertDense(entry, checkpoint, options)];
  }
  const dense = denseWeight(quantizer, await quantizer.read(name, checkpoint), options.dtype);
  checkFloat16(name, dense);
  return [{ name, tensor: dense }];
}

async function convertDense(
  entry: TensorEntry,
  checkpoint: Checkpoint,
  options: ConvertOptions & { readonly keepInFloat32?: readonly string[] },
): Promise<NamedTensor> {
  const tensor = await checkpoint.read(entry.name);
  if (!isFloat(entry.dtype) || options.dtype === undefined) return { name: entry.name, tensor };
  const dtype = denseDType(entry.name, entry.dtype, options);
  return { name: entry.name, tensor: castWeight(entry.name, tensor, dtype) };
}

function isMatrixWeight(entry: TensorEntry): (name: string) => boolean {
  return (name) => name.endsWith(".weight") && entry.shape.length === 2;
}

/**
 * Writes one safetensors file by way of a folder beside it, which spools the tensors instead of holding
 * them. Throws `write_failed`.
 */
export async function writeSingleFile(
  path: string,
  tensors: AsyncIterable<NamedTensor>,
  metadata: Readonly<Record<string, string>>,
): Promise<WrittenCheckpoint> {
  const random = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const folder = joinPath(folderOf(path), `.${nameOf(path)}.${random}.part`);
  try {
    const options = { baseName: "model", maxShardSize: Infinity, metadata } as const;
    const { files, totalSize } = await writeCheckpoint(folder, undefined, tensors, options);
    await renamePath(joinPath(folder, files[0]), path);
    return { files: [nameOf(path)], totalSize };
  } finally {
    await remove(folder);
  }
}

/** config.json with its numbers as they are spelled: 1.0 and 1e-06 stay floats to Python. */
async function spelledConfig(folder: string): Promise<Config> {
  const text = await readTextFile(joinPath(folder, "config.json"));
  return parseJsonKeepingNumbers(text) as { readonly [key: string]: JsonValue };
}

function writeOptionsOf(config: Config, options: ConvertOptions): WriteCheckpointOptions {
  const baseName = libraryOf(config) === "diffusers" ? "diffusion_pytorch_model" : "model";
  return { baseName, maxShardSize: options.maxShardSize };
}

async function isFolder(path: string): Promise<boolean> {
  return (await statPath(path))?.kind === "folder";
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new HalftoneError("aborted", "Cannot finish the conversion: aborted", {}, signal.reason);
}

function alreadyQuantized(file: string): HalftoneError {
  return new HalftoneError("quantization_config", "Cannot quantize a quantized checkpoint", {
    file,
    remedy: "Dequantize it first, or start from the original",
  });
}

function notQuantized(file: string): HalftoneError {
  return new HalftoneError(
    "quantization_config",
    "Cannot dequantize a checkpoint that is not quantized",
    {
      file,
    },
  );
}
