/**
 * Checkpoints: the tensors of one component, in one safetensors or GGUF file or in several, read one at
 * a time by byte range.
 */

import { HalftoneError } from "../errors.ts";
import type { ByteSource } from "../runtime/byte_source.ts";
import {
  folderOf,
  joinPath,
  listFolder,
  nameOf,
  openFileSource,
  readTextFile,
  realPath,
  statPath,
} from "../runtime/files.ts";
import { type GgufBlockType, ggufTypeInfo } from "../quantization/gguf_types.ts";
import { kernelsOver } from "../quantization/wasm_kernels.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Piece, PieceMemory } from "../tensor/piece_memory.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Config } from "./config.ts";
import { checkFinite, checkPieceFinite } from "./finite.ts";
import { isGguf } from "./gguf.ts";
import { readGgufHeader } from "./gguf_reader.ts";
import { JsonFault, parseStrictJson } from "./json.ts";
import { MAGIC_LENGTH } from "./magic.ts";
import {
  parseSafetensorsHeader,
  PREFIX_BYTES,
  type SafetensorsHeader,
  safetensorsHeaderLength,
} from "./safetensors.ts";
import { INDEX_LIMITS, parseShardIndex, type ShardIndex } from "./shard_index.ts";
import { readPieces } from "./tensor_pieces.ts";
import { chooseWeightFile, noWeights, type WeightFileOptions } from "./weight_files.ts";

/** A tensor of a checkpoint. */
export interface TensorEntry {
  /** The name it is stored under. */
  readonly name: string;
  /** The element type. */
  readonly dtype: DType;
  /** The dimensions, outermost first. */
  readonly shape: Shape;
  /** Bytes of its data. */
  readonly bytes: number;
  /** The file it is in. */
  readonly file: string;
  /** The blocks of a GGUF tensor: its type is uint8 then, and its last dimension counts bytes. */
  readonly ggufType?: GgufBlockType;
}

/** The shape of a tensor in elements, also of one in blocks. */
export function shapeInElements(
  { ggufType, shape }: Pick<TensorEntry, "ggufType" | "shape">,
): Shape {
  if (ggufType === undefined) return shape;
  const { elements, bytes } = ggufTypeInfo(ggufType);
  return [...shape.slice(0, -1), shape[shape.length - 1] / bytes * elements];
}

/** How to read a tensor. */
export interface ReadOptions {
  /** Puts it into shared memory. */
  readonly shared?: boolean;
  /** Its type is only a view of packed codes, which may look like NaN. */
  readonly packed?: boolean;
  /** Not looked at for NaN and infinity, as the caller does that. */
  readonly unchecked?: boolean;
  /** Where it lies until that is reset. */
  readonly scratch?: ScratchBytes;
}

/** How to read a tensor piece by piece. */
export interface PieceOptions extends Pick<ReadOptions, "packed"> {
  /** Only rows [start, end) of the first dimension. */
  readonly rows?: readonly [start: number, end: number];
}

/** An open checkpoint; it holds file handles until it is closed, and no tensor data. */
export interface Checkpoint {
  /** The path it was opened by. */
  readonly path: string;
  /** All tensors, in the order of the files. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** The `__metadata__` of its files. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Reads one tensor. Throws `missing_tensor`, `non_finite_weight` unless such were allowed,
   * `out_of_memory`, `closed`.
   */
  read(name: string, options?: ReadOptions): Promise<HostTensor>;
  /** Reads rows [start, end) of the first dimension, and throws as `read` does. */
  readRows(name: string, start: number, end: number, options?: ReadOptions): Promise<HostTensor>;
  /**
   * Passes a tensor through piece memory in whole elements or blocks, and throws as `read` does: a piece is
   * checked before `take` sees it.
   */
  readPieces(
    name: string,
    through: PieceMemory,
    take: (piece: Piece) => void,
    options?: PieceOptions,
  ): Promise<void>;
  /** Closes the files; safe to call twice. */
  close(): Promise<void>;
}

/** How to open a checkpoint. */
export interface CheckpointOptions extends WeightFileOptions {
  /** Whether plain files may stand in when the folder has none of the variant. */
  readonly variantFallback?: boolean;
  /** Whether tensors with NaN or infinity may be read. */
  readonly allowNonFinite?: boolean;
}

/**
 * Opens the weights in a folder (one file or sharded), a single safetensors or GGUF file, or an index
 * file, and checks all headers. Throws `missing_file`, `invalid_safetensors`, `invalid_gguf`,
 * `unsupported_file`, `unsafe_path`, `missing_tensor`, `unexpected_tensor`.
 */
export async function openCheckpoint(
  folderOrFile: string,
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
  const status = await statPath(folderOrFile);
  const file = status?.kind === "folder"
    ? joinPath(folderOrFile, await findWeightFile(folderOrFile, options))
    : folderOrFile;
  if (!/\.index(\.\w+)?\.json$/.test(file)) return await openFiles(folderOrFile, [file], options);
  const index = parseShardIndex(await readTextFile(file, INDEX_LIMITS.bytes), file);
  const shards = await Promise.all(index.shards.map((shard) => locateShard(file, shard)));
  return await openFiles(folderOrFile, shards, options, { ...index, file });
}

/** The name of the weight file or index in a folder. Throws `missing_file`, `unsupported_file`. */
async function findWeightFile(folder: string, options: CheckpointOptions): Promise<string> {
  const names = await listFolder(folder);
  const plain = options.variantFallback ? { ...options, variant: undefined } : options;
  const found = chooseWeightFile(names, options) ?? chooseWeightFile(names, plain);
  if (found === undefined) throw noWeights(folder, names, options);
  return found.name;
}

/** The path of a shard, which must be there and must not lead elsewhere by a link. */
async function locateShard(index: string, shard: string): Promise<string> {
  const path = joinPath(folderOf(index), shard);
  if ((await statPath(path))?.kind !== "file") throw missingShard(index, path);
  const [folder, target] = await Promise.all([realPath(folderOf(index)), realPath(path)]);
  if (isWithin(target, trustedFolder(folder))) return path;
  throw new HalftoneError("unsafe_path", "Cannot follow a shard out of the model folder", {
    file: path,
    found: target,
    expected: `a file in ${folder}`,
    remedy: "Put the file itself, not a link, into the folder.",
  });
}

/** The Hugging Face cache links from `snapshots/` into `blobs/` beside it, and that is fine. */
function trustedFolder(folder: string): string {
  const cache = /^(.*[/\\]models--[^/\\]+)[/\\]snapshots[/\\]/.exec(folder);
  return cache === null ? folder : cache[1];
}

function isWithin(path: string, folder: string): boolean {
  const rest = path.startsWith(folder) ? path.slice(folder.length) : undefined;
  return rest !== undefined && (folder.endsWith("/") || /^[/\\]/.test(rest));
}

function missingShard(index: string, path: string): HalftoneError {
  return new HalftoneError("missing_file", "Cannot find a shard that the index names", {
    file: path,
    found: "no file",
    expected: `the shard ${nameOf(path)}, named by ${nameOf(index)}`,
    remedy: "Fetch the missing file.",
  });
}

async function openFiles(
  path: string,
  files: readonly string[],
  options: CheckpointOptions,
  index?: ShardIndex & { file: string },
): Promise<Checkpoint> {
  const sources: ByteSource[] = [];
  try {
    for (const file of files) sources.push(await openFileSource(file));
    const checkpoint = await checkpointFromSources(path, sources, options);
    if (index !== undefined) checkIndex(checkpoint, index);
    return checkpoint;
  } catch (error) {
    await Promise.all(sources.map((source) => source.close()));
    throw error;
  }
}

/** Every tensor of the index must be in the shard that the index says. */
function checkIndex(checkpoint: Checkpoint, index: ShardIndex & { file: string }): void {
  for (const [name, shard] of index.weightMap) {
    const file = checkpoint.entries.get(name)?.file;
    if (file !== undefined && nameOf(file) === shard) continue;
    throw new HalftoneError("missing_tensor", "Cannot find a tensor in the shard the index names", {
      file: joinPath(folderOf(index.file), shard),
      tensor: name,
      found: file === undefined ? "no such tensor in any shard" : `it in ${nameOf(file)}`,
      expected: `it in ${shard}`,
      remedy: "The index and the shards do not belong together; fetch them again.",
    });
  }
}

/** A checkpoint over files that are open already, wherever they lie; closing it closes them. */
export async function checkpointFromSources(
  path: string,
  sources: readonly ByteSource[],
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
  const located = new Map<string, LocatedEntry>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const source of sources) {
    const header = await readHeader(source);
    metadata = { ...header.metadata, ...metadata };
    addEntries(located, header, source);
  }
  return new SourceCheckpoint(path, located, metadata, sources, options);
}

interface LocatedEntry extends TensorEntry {
  readonly source: ByteSource;
  readonly offset: number;
}

/** What a header of either format says. */
type FileHeader = Pick<SafetensorsHeader, "metadata"> & {
  readonly entries: ReadonlyMap<string, Omit<LocatedEntry, "file" | "source">>;
};

function addEntries(
  located: Map<string, LocatedEntry>,
  header: FileHeader,
  source: ByteSource,
): void {
  for (const entry of header.entries.values()) {
    const earlier = located.get(entry.name);
    if (earlier !== undefined) {
      throw new HalftoneError("unexpected_tensor", "Cannot read a tensor that two shards hold", {
        file: source.path,
        tensor: entry.name,
        found: `it in ${nameOf(earlier.file)} as well`,
        remedy: "Remove shards that belong to another model, or fetch all of them again.",
      });
    }
    located.set(entry.name, { ...entry, file: source.path, source });
  }
}

/** The header of a safetensors or a GGUF file, told apart by their first bytes. */
async function readHeader(source: ByteSource): Promise<FileHeader> {
  const start = await source.read(0, Math.min(source.size, MAGIC_LENGTH));
  if (isGguf(start)) return await readGgufHeader(source);
  const length = safetensorsHeaderLength(start, source.size, source.path);
  const header = await source.read(0, PREFIX_BYTES + length);
  return parseSafetensorsHeader(header, source.size, source.path);
}

class SourceCheckpoint implements Checkpoint {
  #closed = false;

  constructor(
    readonly path: string,
    readonly entries: ReadonlyMap<string, LocatedEntry>,
    readonly metadata: Readonly<Record<string, string>>,
    readonly sources: readonly ByteSource[],
    readonly options: CheckpointOptions,
  ) {}

  read(name: string, options: ReadOptions = {}): Promise<HostTensor> {
    return this.#read(name, options, (entry) => entry);
  }

  readRows(
    name: string,
    start: number,
    end: number,
    options: ReadOptions = {},
  ): Promise<HostTensor> {
    return this.#read(name, options, (entry) => locatedRows(entry, start, end));
  }

  async readPieces(
    name: string,
    through: PieceMemory,
    take: (piece: Piece) => void,
    { packed, rows }: PieceOptions = {},
  ): Promise<void> {
    const whole = this.#entry(name);
    const entry = rows === undefined ? whole : locatedRows(whole, ...rows);
    if (this.options.allowNonFinite || packed) return await readPieces(entry, through, take);
    const kernels = await kernelsOver(through);
    await readPieces(entry, through, (piece) => {
      checkPieceFinite(piece, entry, kernels);
      take(piece);
    });
  }

  async #read(
    name: string,
    options: ReadOptions,
    choose: (entry: LocatedEntry) => LocatedEntry,
  ): Promise<HostTensor> {
    const entry = choose(this.#entry(name));
    const bytes = allocate(entry, options);
    await entry.source.read(entry.offset, entry.bytes, bytes);
    const tensor = new HostTensor(entry.dtype, entry.shape, bytes);
    const { packed, unchecked } = options;
    if (!this.options.allowNonFinite && !packed && !unchecked) {
      checkFinite(tensor, name, entry.file);
    }
    return tensor;
  }

  #entry(name: string): LocatedEntry {
    if (this.#closed) {
      throw new HalftoneError("closed", "Cannot read from a closed checkpoint", {
        file: this.path,
      });
    }
    const entry = this.entries.get(name);
    if (entry === undefined) throw missingTensor(name, this.path);
    return entry;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(this.sources.map((source) => source.close()));
  }
}

function locatedRows(entry: LocatedEntry, start: number, end: number): LocatedEntry {
  const rows = rowsOf(entry, start, end);
  return { ...entry, ...rows, offset: entry.offset + (rows.bytes / (end - start) || 0) * start };
}

/** Rows [start, end) of a tensor as one of their own. Throws `invalid_argument`. */
export function rowsOf(entry: TensorEntry, start: number, end: number): TensorEntry {
  const [rows, ...rest] = entry.shape;
  const isRange = Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start <= end;
  if (rows === undefined || !isRange || end > rows) {
    throw new HalftoneError("invalid_argument", "Cannot read rows that a tensor lacks", {
      file: entry.file,
      tensor: entry.name,
      found: `rows ${start} to ${end}`,
      expected: `0 to ${rows ?? "none"}`,
    });
  }
  const bytes = rows === 0 ? 0 : entry.bytes / rows * (end - start);
  return { ...entry, shape: [end - start, ...rest], bytes };
}

function allocate(entry: TensorEntry, { shared, scratch }: ReadOptions): Uint8Array {
  try {
    if (scratch) return (shared ? scratch.shared : scratch).take(entry.bytes);
    return new Uint8Array(new (shared ? SharedArrayBuffer : ArrayBuffer)(entry.bytes));
  } catch (cause) {
    const detail = { file: entry.file, tensor: entry.name, expected: `${entry.bytes} bytes` };
    throw new HalftoneError("out_of_memory", "Cannot hold a tensor in memory", detail, cause);
  }
}

function missingTensor(name: string, file: string): HalftoneError {
  return new HalftoneError("missing_tensor", "Cannot find a tensor in the checkpoint", {
    file,
    tensor: name,
    remedy: "The file is incomplete or belongs to another kind of model.",
  });
}

/** The most bytes a JSON configuration may have. */
const CONFIG_BYTES = 2 ** 20;

/** The config.json of a component. Throws `missing_file`, `invalid_config`. */
export function readConfig(folder: string): Promise<Config> {
  return readJsonObject(joinPath(folder, "config.json"));
}

/** A JSON file that holds an object. Throws `missing_file`, `invalid_config`. */
export async function readJsonObject(file: string, limit: number = CONFIG_BYTES): Promise<Config> {
  try {
    const value = parseStrictJson(await readTextFile(file, limit));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Config;
    }
    throw new JsonFault(`a JSON ${Array.isArray(value) ? "list" : typeof value}`);
  } catch (error) {
    const isFormat = error instanceof JsonFault ||
      (error instanceof HalftoneError && error.code === "unsupported_file");
    if (!isFormat) throw error;
    throw new HalftoneError("invalid_config", "Cannot parse the config", {
      file,
      found: error.message,
      expected: "a JSON object",
      remedy: "Fetch the file again.",
    }, error);
  }
}
