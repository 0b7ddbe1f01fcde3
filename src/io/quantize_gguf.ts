/** Quantizing a checkpoint into one GGUF file, tensor by tensor. */

import { HalftoneError } from "../errors.ts";
import { quantizeTensor } from "../quantization/gguf.ts";
import type { GGUFQuantizationConfig } from "../quantization/gguf_config.ts";
import {
  GGUF_MIXES,
  type GgufMix,
  ggufTypeFor,
  SMALLEST_QUANTIZED,
  staysDense,
  t5Layers,
} from "../quantization/gguf_mixes.ts";
import { isGgufQuantType } from "../quantization/gguf_quantizers.ts";
import { type GgufType, ggufTypeInfo } from "../quantization/gguf_types.ts";
import { createPause } from "../quantization/pause.ts";
import { moduleOf } from "../quantization/quantizer.ts";
import { castWeight, type WeightDType } from "../quantization/weights.ts";
import { type DType, isFloat } from "../tensor/dtype.ts";
import { elementCount } from "../tensor/shape.ts";
import { joinPath, makeFolder, statPath } from "../runtime/files.ts";
import { hasSharedWorkers } from "../runtime/workers.ts";
import { ScratchBytes } from "../tensor/scratch_bytes.ts";
import {
  type Checkpoint,
  openCheckpoint,
  readConfig,
  shapeInElements,
  type TensorEntry,
} from "./checkpoint.ts";
import type { Config } from "./config.ts";
import { copyFile } from "./write_checkpoint.ts";
import type { WrittenCheckpoint } from "./checkpoint_writer.ts";
import {
  type GgufPairs,
  ggufTensorBytes,
  type GgufTensorDescription,
  writeGguf,
} from "./gguf_writer.ts";

/** Plain types that all matrices can be given. */
export const PLAIN_FILE_TYPES = { F32: 0, F16: 1, BF16: 32 } as const;

/** What matrices can become. */
export type GgufFileType = GgufMix | keyof typeof PLAIN_FILE_TYPES;

/** How to write a GGUF file. */
export interface QuantizeGgufOptions {
  /** What matrices become; without it every tensor keeps its type, also blocks. */
  readonly quantType?: GgufFileType;
  /** `general.architecture`: "flux", "t5encoder" ... */
  readonly architecture: string;
  /** More metadata, after the usual three. */
  readonly metadata?: GgufPairs;
  /** Which tensors are weights of linear layers; every matrix unless given. */
  readonly linearNames?: (name: string) => boolean;
  /** Float weights are rounded to it first. */
  readonly dtype?: WeightDType;
  readonly signal?: AbortSignal;
  /** Called after each tensor. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What becomes of a tensor. */
interface Target extends GgufTensorDescription {
  readonly entry: TensorEntry;
}

/**
 * Writes all tensors of a checkpoint, under its names, into one file. Vectors and tensors of at most
 * 1024 elements become F32; what stays dense keeps its type; a row that is no whole number of blocks
 * becomes F16, or stays BF16. Throws `quantization_config` for blocks that would become others,
 * `unsupported` for a tensor that is not float, `write_failed`, `aborted`, and what reading throws.
 */
export async function quantizeToGguf(
  checkpoint: Checkpoint,
  path: string,
  options: QuantizeGgufOptions,
): Promise<WrittenCheckpoint> {
  const layers = t5Layers(checkpoint.entries.keys());
  const targets = [...checkpoint.entries.values()].map((entry) => targetOf(entry, layers, options));
  const pairs = metadataOf(options);
  const scratch = new ScratchBytes();
  await writeGguf(path, targets, pairs, async function* (_, index) {
    if (options.signal?.aborted) throw aborted(options.signal);
    scratch.reset();
    yield await encode(targets[index], checkpoint, options, scratch);
    options.onProgress?.(index + 1, targets.length);
  });
  const totalSize = targets.reduce((sum, target) => sum + ggufTensorBytes(target), 0);
  return { files: [path.slice(path.search(/[^/\\]*$/))], totalSize };
}

/** How to quantize a component where it keeps its own names. */
export interface QuantizeGgufFolderOptions
  extends Pick<QuantizeGgufOptions, "linearNames" | "dtype" | "signal" | "onProgress"> {
  readonly quantizationConfig: GGUFQuantizationConfig;
  /** The infix of the source's weight files, such as "fp16". */
  readonly variant?: string;
}

/**
 * Quantizes a component folder into another with one GGUF file and the same config.json, or a
 * safetensors file into a GGUF file. Tensors keep their names, which halftone reads as they are; for
 * other tools see `ggufFileOf` of src/models. Throws as `quantizeToGguf` does.
 */
export async function quantizeGgufFolder(
  source: string,
  destination: string,
  { quantizationConfig: { quantType }, ...options }: QuantizeGgufFolderOptions,
): Promise<WrittenCheckpoint> {
  if (quantType === null) throw noType();
  const isFolder = (await statPath(source))?.kind === "folder";
  const config = isFolder ? await readConfig(source) : {};
  if (config.quantization_config !== undefined) throw alreadyQuantized({ file: source });
  const architecture = architectureOf(config);
  const { variant } = options;
  const checkpoint = await openCheckpoint(source, { variant, variantFallback: true });
  try {
    const write = (path: string) =>
      quantizeToGguf(checkpoint, path, { ...options, quantType, architecture });
    if (!isFolder) return await write(destination);
    await makeFolder(destination);
    const baseName = "_class_name" in config ? "diffusion_pytorch_model" : "model";
    const written = await write(joinPath(destination, `${baseName}.gguf`));
    await copyFile(joinPath(source, "config.json"), joinPath(destination, "config.json"));
    return written;
  } finally {
    await checkpoint.close();
  }
}

/** What other tools call the models they read; the class of others. */
function architectureOf(config: Config): string {
  const [named] = [config._class_name ?? config.architectures].flat();
  if (named === "FluxTransformer2DModel") return "flux";
  if (named === "T5EncoderModel") return "t5encoder";
  return typeof named === "string" ? named : "unknown";
}

function noType(): HalftoneError {
  return new HalftoneError("quantization_config", "Cannot tell which GGUF type is wanted", {
    field: "quant_type",
    found: "nothing",
    expected: Object.keys(GGUF_MIXES).join(", "),
  });
}

function metadataOf({ architecture, quantType, metadata = [] }: QuantizeGgufOptions): GgufPairs {
  return [
    ["general.architecture", { type: "string", value: architecture }],
    ["general.quantization_version", { type: "uint32", value: 2 }],
    ...quantType === undefined ? [] : [fileTypePair(quantType)],
    ...metadata,
  ];
}

function fileTypePair(quantType: GgufFileType): GgufPairs[number] {
  const value = isPlain(quantType) ? PLAIN_FILE_TYPES[quantType] : GGUF_MIXES[quantType].fileType;
  return ["general.file_type", { type: "uint32", value }];
}

function isPlain(quantType: GgufFileType): quantType is keyof typeof PLAIN_FILE_TYPES {
  return Object.hasOwn(PLAIN_FILE_TYPES, quantType);
}

function targetOf(entry: TensorEntry, layers: number, options: QuantizeGgufOptions): Target {
  const { name, shape, dtype } = entry;
  if (entry.ggufType !== undefined) {
    if (options.quantType !== undefined) throw alreadyQuantized(entry);
    return { name, shape: shapeInElements(entry), type: entry.ggufType, entry };
  }
  if (!isFloat(dtype)) throw notFloat(entry);
  return { name, shape, type: typeOf(entry, layers, options), entry };
}

function typeOf(entry: TensorEntry, layers: number, options: QuantizeGgufOptions): GgufType {
  const { name, shape } = entry;
  if (shape.length < 2 || elementCount(shape) <= SMALLEST_QUANTIZED) return "F32";
  const dense = denseType(options.dtype ?? entry.dtype);
  const isLinear = shape.length === 2 && (options.linearNames?.(name) ?? true);
  const { quantType } = options;
  if (quantType === undefined || !isLinear || staysDense(moduleOf(name))) return dense;
  if (isPlain(quantType)) return quantType;
  const type = ggufTypeFor(quantType, { name, columns: shape[1], layers });
  if (shape[1] % ggufTypeInfo(type).elements === 0) return type;
  return dense === "BF16" ? "BF16" : "F16";
}

/** Without loss. */
function denseType(dtype: DType): GgufType {
  if (dtype === "float16") return "F16";
  return dtype === "bfloat16" || dtype.startsWith("float8") ? "BF16" : "F32";
}

async function encode(
  { name, type, entry }: Target,
  checkpoint: Checkpoint,
  options: QuantizeGgufOptions,
  scratch: ScratchBytes,
): Promise<Uint8Array> {
  if (entry.ggufType !== undefined) return (await checkpoint.read(name, { packed: true })).bytes;
  const shared = isGgufQuantType(type) && hasSharedWorkers();
  const stored = await checkpoint.read(entry.name, { shared, scratch });
  const dense = options.dtype === undefined ? stored : castWeight(name, stored, options.dtype);
  if (isGgufQuantType(type)) {
    return await quantizeTensor(type, name, dense, createPause({ scratch }));
  }
  return castWeight(name, dense, ggufTypeInfo(type).dtype!).bytes;
}

function alreadyQuantized({ file, name }: { file: string; name?: string }): HalftoneError {
  return new HalftoneError("quantization_config", "Cannot quantize a quantized checkpoint", {
    file,
    tensor: name,
    remedy: "Dequantize it first, or start from the original",
  });
}

function notFloat({ file, name, dtype }: TensorEntry): HalftoneError {
  return new HalftoneError("unsupported", "Cannot write a tensor of this type as GGUF", {
    file,
    tensor: name,
    found: dtype,
    expected: "a float type",
    remedy: "A checkpoint that is quantized already must be dequantized first",
  });
}

function aborted(signal: AbortSignal): HalftoneError {
  return new HalftoneError("aborted", "Cannot finish the conversion: aborted", {}, signal.reason);
}
