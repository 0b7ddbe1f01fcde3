/**
 * The GGUF container, version 3 (and 2, which differs in nothing that is read here): magic, counts,
 * metadata, tensor infos, padding, data. Pure functions of bytes; every count is bounded by the bytes
 * that are left, every size is checked before it is used, and the file must end where its tensors do.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */

import { HalftoneError } from "../errors.ts";
import { type GgufTypeInfo, ggufTypeOfId, UNREAD_GGUF_TYPES } from "../quantization/gguf_types.ts";
import type { Shape } from "../tensor/shape.ts";
import { GgufCursor, invalidGguf } from "./gguf_cursor.ts";
import { type GgufMetadata, readMetadata } from "./gguf_metadata.ts";

/** What a file may claim; far above real models (FLUX.1: 780 tensors, a header of 60 KB). */
export const GGUF_LIMITS = {
  headerBytes: 64 * 2 ** 20,
  tensors: 65_536,
  metadata: 4_096,
  stringBytes: 2 ** 20,
  arrayItems: 2 ** 20,
  keyBytes: 255,
  nameBytes: 255,
  rank: 4,
  dimension: 2 ** 31,
  smallestAlignment: 8,
  largestAlignment: 4_096,
} as const;

/** Bytes of magic, version and the two counts. */
const PREAMBLE_BYTES = 24;

/** A tensor as its info describes it. */
export interface GgufEntry {
  /** The name it is stored under. */
  readonly name: string;
  readonly type: GgufTypeInfo;
  /** The dimensions, outermost first: the file has them in reverse. */
  readonly shape: Shape;
  /** Where its bytes begin, counted from the start of the file. */
  readonly offset: number;
  /** How many bytes they are, without padding. */
  readonly bytes: number;
}

/** A checked header. */
export interface GgufHeader {
  readonly version: number;
  /** The tensors in the order of their data. */
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly metadata: GgufMetadata;
  /** Data begin at multiples of it. */
  readonly alignment: number;
  /** Where the data begins, counted from the start of the file. */
  readonly dataOffset: number;
}

/** Whether bytes begin as a GGUF file does. */
export function isGguf(start: Uint8Array): boolean {
  return start.length >= 4 && start[0] === 0x47 && start[1] === 0x47 && start[2] === 0x55 &&
    start[3] === 0x46;
}

/**
 * Checks a header. `start` holds the first bytes of the file, `fileSize` is the size of the whole
 * file. Null when the header goes on past `start`: call again with more. Throws `invalid_gguf` or
 * `unsupported`.
 */
export function parseGgufHeader(
  start: Uint8Array,
  fileSize: number,
  file?: string,
): GgufHeader | null {
  const cursor = new GgufCursor(start, Math.min(fileSize, GGUF_LIMITS.headerBytes), file);
  try {
    return parse(cursor, fileSize, file);
  } catch (error) {
    if (cursor.isWaiting(error)) return null;
    throw error;
  }
}

function parse(cursor: GgufCursor, fileSize: number, file?: string): GgufHeader {
  const version = readVersion(cursor, file);
  const tensors = readCount(cursor, "tensor_count", GGUF_LIMITS.tensors, 24);
  const pairs = readCount(cursor, "metadata_kv_count", GGUF_LIMITS.metadata, 13);
  const metadata = readMetadata(cursor, pairs, GGUF_LIMITS);
  const alignment = readAlignment(metadata, file);
  const infos = readInfos(cursor, tensors);
  const dataOffset = padded(cursor.position, alignment);
  const entries = locate(
    infos,
    { dataOffset, alignment, fileSize, headerEnd: cursor.position },
    file,
  );
  return { version, entries, metadata, alignment, dataOffset };
}

function readVersion(cursor: GgufCursor, file?: string): number {
  if (cursor.u32("magic") !== 0x46554747) {
    throw invalidGguf("it does not begin with GGUF", { file, field: "magic" });
  }
  const version = cursor.u32("version");
  if (version === 2 || version === 3) return version;
  const detail = { file, field: "version", found: version, expected: "3" };
  if (version === 1 || version === 0x02000000 || version === 0x03000000) {
    throw new HalftoneError("unsupported", "Cannot read GGUF of this version or byte order", {
      ...detail,
      remedy: "Convert the model again with a current tool",
    });
  }
  throw invalidGguf("it has no known version", detail);
}

/** A count of things of at least `smallest` bytes each. */
function readCount(cursor: GgufCursor, field: string, limit: number, smallest: number): number {
  const count = cursor.u64(field);
  // Counted from the end of the preamble, which holds both counts.
  const most = Math.min(limit, Math.floor(Math.max(0, cursor.end - PREAMBLE_BYTES) / smallest));
  if (count <= most) return count;
  throw cursor.invalid("a count is larger than the file can hold", field, count, `at most ${most}`);
}

function readAlignment(metadata: GgufMetadata, file?: string): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return 32;
  const { smallestAlignment: least, largestAlignment: most } = GGUF_LIMITS;
  const value = entry.value as number;
  const isPower = entry.type === "uint32" && (value & (value - 1)) === 0;
  if (isPower && value >= least && value <= most) return value;
  throw invalidGguf("its alignment cannot be", {
    file,
    field: "general.alignment",
    found: `${entry.type} ${entry.value}`,
    expected: `a uint32 power of two from ${least} to ${most}`,
  });
}

interface TensorInfo {
  readonly name: string;
  readonly type: GgufTypeInfo;
  readonly shape: Shape;
  readonly offset: number;
  readonly bytes: number;
}

function readInfos(cursor: GgufCursor, count: number): TensorInfo[] {
  const infos: TensorInfo[] = [];
  const names = new Set<string>();
  for (let index = 0; index < count; index++) {
    const name = cursor.string("tensor name", GGUF_LIMITS.nameBytes);
    if (name === "") throw cursor.invalid("a tensor has no name", "tensor name", name);
    if (names.has(name)) throw cursor.invalid("two tensors have one name", "tensor name", name);
    names.add(name);
    infos.push(readInfo(cursor, name));
  }
  return infos;
}

function readInfo(cursor: GgufCursor, name: string): TensorInfo {
  const rank = cursor.u32("n_dims");
  if (rank > GGUF_LIMITS.rank) {
    const most = `at most ${GGUF_LIMITS.rank}`;
    throw cursor.invalid("a tensor has too many dimensions", "n_dims", rank, most, name);
  }
  const shape: number[] = [];
  for (let axis = 0; axis < rank; axis++) shape.unshift(readDimension(cursor, name));
  const type = readType(cursor, name);
  const bytes = byteCount(cursor, name, type, shape);
  return { name, type, shape, bytes, offset: cursor.u64("offset") };
}

function readDimension(cursor: GgufCursor, name: string): number {
  const dimension = cursor.u64("dimensions");
  if (dimension >= 1 && dimension <= GGUF_LIMITS.dimension) return dimension;
  const expected = `1 to ${GGUF_LIMITS.dimension}`;
  throw cursor.invalid(
    "a tensor has an impossible dimension",
    "dimensions",
    dimension,
    expected,
    name,
  );
}

function readType(cursor: GgufCursor, name: string): GgufTypeInfo {
  const id = cursor.u32("type");
  const type = ggufTypeOfId(id);
  if (type !== undefined) return type;
  const unread = UNREAD_GGUF_TYPES.get(id);
  if (unread === undefined) {
    throw cursor.invalid("a tensor has an unknown type", "type", id, undefined, name);
  }
  throw new HalftoneError("unsupported", "Cannot read a tensor of this type", {
    file: cursor.file,
    tensor: name,
    field: "type",
    found: unread,
    remedy: "Use a file in another format, such as Q4_K or Q8_0",
  });
}

function byteCount(cursor: GgufCursor, name: string, type: GgufTypeInfo, shape: Shape): number {
  const columns = shape[shape.length - 1] ?? 1;
  if (columns % type.elements !== 0) {
    const expected = `a multiple of ${type.elements} for ${type.name}`;
    throw cursor.invalid(
      "a row is no whole number of blocks",
      "dimensions",
      columns,
      expected,
      name,
    );
  }
  let bytes = columns / type.elements * type.bytes;
  for (const dimension of shape.slice(0, -1)) {
    bytes *= dimension;
    // Past the file long before the product loses digits; checked at each step.
    if (bytes > Number.MAX_SAFE_INTEGER) {
      throw cursor.invalid("a tensor's size overflows", "dimensions", shape, undefined, name);
    }
  }
  return bytes;
}

interface DataPlace {
  readonly dataOffset: number;
  readonly alignment: number;
  readonly fileSize: number;
  /** Where the infos end: a file without tensors may end there, unpadded. */
  readonly headerEnd: number;
}

/** Tensors follow each other in the order of their infos, each padded, and the file ends with them. */
function locate(
  infos: readonly TensorInfo[],
  place: DataPlace,
  file?: string,
): Map<string, GgufEntry> {
  const entries = new Map<string, GgufEntry>();
  let next = 0;
  let end = infos.length === 0 ? place.headerEnd : place.dataOffset;
  for (const info of infos) {
    checkOffset(info, next, place, file);
    entries.set(info.name, { ...info, offset: place.dataOffset + info.offset });
    end = place.dataOffset + info.offset + info.bytes;
    next = padded(info.offset + info.bytes, place.alignment);
  }
  if (place.fileSize <= padded(end, place.alignment)) return entries;
  throw invalidGguf("there are bytes after the last tensor", {
    file,
    found: `${place.fileSize} bytes`,
    expected: `${end} bytes and padding`,
  });
}

function checkOffset(info: TensorInfo, next: number, place: DataPlace, file?: string): void {
  const detail = { file, tensor: info.name, field: "offset", found: info.offset };
  if (info.offset % place.alignment !== 0) {
    const expected = `a multiple of ${place.alignment}`;
    throw invalidGguf("a tensor's data is not aligned", { ...detail, expected });
  }
  if (info.offset !== next) {
    const problem = info.offset < next ? "two tensors overlap" : "there is a hole in the data";
    throw invalidGguf(problem, { ...detail, expected: next });
  }
  const end = place.dataOffset + info.offset + info.bytes;
  if (end <= place.fileSize) return;
  const expected = `${end} bytes`;
  const found = `${place.fileSize} bytes`;
  throw invalidGguf("a tensor's data lies outside the file", { ...detail, found, expected });
}

/** The next multiple of a power of two. */
export function padded(position: number, alignment: number): number {
  return Math.ceil(position / alignment) * alignment;
}
