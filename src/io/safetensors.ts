/**
 * The safetensors format: u64 header length, JSON header, data. Pure functions of bytes; every size is
 * checked before it is used. Stricter than the reference reader in its caps, in unknown header fields
 * and in number spelling, and equal to it otherwise: no holes, no overlaps, no duplicate keys.
 * https://github.com/huggingface/safetensors
 */

import { HalftoneError } from "../errors.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { JsonFault, parseStrictJson } from "./json.ts";
import { refuseForeignFile } from "./magic.ts";

/** What a header may claim; far above real models (FLUX.1: 150 KB, 1,160 tensors). */
export const SAFETENSORS_LIMITS = {
  headerBytes: 16 * 2 ** 20,
  tensors: 65_536,
  rank: 8,
  dimension: 2 ** 31,
} as const;

/** Bytes of the length before the header. */
export const PREFIX_BYTES = 8;

/** A tensor as the header describes it. */
export interface SafetensorsEntry {
  /** The name it is stored under. */
  readonly name: string;
  /** The element type. */
  readonly dtype: DType;
  /** The dimensions, outermost first. */
  readonly shape: Shape;
  /** Where its bytes begin, counted from the start of the file. */
  readonly offset: number;
  /** How many bytes they are. */
  readonly bytes: number;
}

/** A checked header. */
export interface SafetensorsHeader {
  /** The tensors in the order of their data. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** The free text pairs under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the data begins, counted from the start of the file. */
  readonly dataOffset: number;
}

/** Header names of the element types, in the order in which the reference library stores data. */
export const SAFETENSORS_DTYPES: readonly (readonly [dtype: DType, name: string])[] = [
  ["uint64", "U64"],
  ["int64", "I64"],
  ["float64", "F64"],
  ["float32", "F32"],
  ["uint32", "U32"],
  ["int32", "I32"],
  ["bfloat16", "BF16"],
  ["float16", "F16"],
  ["uint16", "U16"],
  ["int16", "I16"],
  ["float8_e4m3fn", "F8_E4M3"],
  ["float8_e5m2", "F8_E5M2"],
  ["int8", "I8"],
  ["uint8", "U8"],
  ["bool", "BOOL"],
];

const DTYPES_BY_NAME: ReadonlyMap<unknown, DType> = new Map(
  SAFETENSORS_DTYPES.map(([dtype, name]) => [name, dtype]),
);

/** Types of the format that no model halftone runs has. */
const UNREAD_DTYPES = ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"];

/**
 * The header's length in bytes, from the first bytes of a file (at least 9 if it has them). Throws
 * `unsupported_file` for other known formats, else `invalid_safetensors`.
 */
export function safetensorsHeaderLength(
  start: Uint8Array,
  fileSize: number,
  file?: string,
): number {
  const length = start.byteLength < PREFIX_BYTES ? -1 : readLength(start);
  const plausible = length >= 2 && length <= SAFETENSORS_LIMITS.headerBytes &&
    start[PREFIX_BYTES] === "{".charCodeAt(0);
  // Only now, because a header of 640 bytes begins like a pickle.
  if (!plausible) refuseForeignFile(start, file);
  checkLength(start, length, fileSize, file);
  return length;
}

function readLength(start: Uint8Array): number {
  return Number(new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true));
}

function checkLength(start: Uint8Array, length: number, fileSize: number, file?: string): void {
  if (length < 0) {
    fail(file, "the file ends within the header length", `${fileSize} bytes`, "at least 10 bytes");
  }
  if (length > SAFETENSORS_LIMITS.headerBytes) {
    const most = `at most ${SAFETENSORS_LIMITS.headerBytes}`;
    fail(file, "the header is too long", length, most, "header length");
  }
  if (length > fileSize - PREFIX_BYTES) {
    const most = `at most ${fileSize - PREFIX_BYTES}`;
    fail(file, "the header is longer than the file", length, most, "header length");
  }
  if (length < 2) {
    fail(file, "the header is too short", length, "at least 2", "header length");
  }
  if (start.byteLength > PREFIX_BYTES && start[PREFIX_BYTES] !== "{".charCodeAt(0)) {
    fail(file, "the header does not start with {", `byte ${start[PREFIX_BYTES]}`, "{");
  }
}

/**
 * Checks a header. `start` holds the length and the whole header (more is ignored), `fileSize` is the
 * size of the whole file. Throws `invalid_safetensors` (or `unsupported_file`, `unsupported`).
 */
export function parseSafetensorsHeader(
  start: Uint8Array,
  fileSize: number,
  file?: string,
): SafetensorsHeader {
  const length = safetensorsHeaderLength(start, fileSize, file);
  const dataOffset = PREFIX_BYTES + length;
  const json = parseHeaderJson(start.subarray(PREFIX_BYTES, dataOffset), file);
  const { __metadata__: metadata = {}, ...tensors } = json;
  checkMetadata(metadata, file);
  const entries = parseEntries(Object.entries(tensors), dataOffset, fileSize, file);
  checkContiguous(entries, dataOffset, fileSize, file);
  return { entries: new Map(entries.map((entry) => [entry.name, entry])), metadata, dataOffset };
}

function parseHeaderJson(bytes: Uint8Array, file?: string): Record<string, unknown> {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return parseStrictJson(text, { plainIntegers: true, maxDepth: 4 }) as Record<string, unknown>;
  } catch (error) {
    const found = error instanceof JsonFault ? error.message : "bytes that are not UTF-8";
    return fail(file, "the header is not strict JSON", found, undefined, "header");
  }
}

function checkMetadata(
  metadata: unknown,
  file?: string,
): asserts metadata is Record<string, string> {
  const isText = isObject(metadata) &&
    Object.values(metadata).every((value) => typeof value === "string");
  if (!isText) {
    fail(file, "the metadata is not text", metadata, "an object of strings", "__metadata__");
  }
}

function parseEntries(
  tensors: [string, unknown][],
  dataOffset: number,
  fileSize: number,
  file?: string,
): SafetensorsEntry[] {
  if (tensors.length > SAFETENSORS_LIMITS.tensors) {
    const most = `at most ${SAFETENSORS_LIMITS.tensors}`;
    fail(file, "there are too many tensors", tensors.length, most);
  }
  const parser = new EntryParser(dataOffset, fileSize, file);
  const entries = tensors.map(([name, info]) => parser.parse(name, info));
  return entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
}

/** Checks what the header says about one tensor at a time. */
class EntryParser {
  constructor(readonly dataOffset: number, readonly fileSize: number, readonly file?: string) {}

  parse(name: string, info: unknown): SafetensorsEntry {
    if (!isObject(info)) this.fail(name, "a tensor is not described", info, "an object");
    const { dtype, shape, data_offsets: offsets, ...others } = info;
    const extra = Object.keys(others)[0];
    if (extra !== undefined) this.fail(name, "a tensor has an unknown field", extra);
    const checked = { dtype: this.dtype(name, dtype), shape: this.shape(name, shape) };
    const [begin, end] = this.offsets(name, offsets);
    const bytes = this.byteCount(name, checked.dtype, checked.shape);
    if (end - begin !== bytes) {
      const expected = `${bytes} bytes for ${dtype} [${checked.shape}]`;
      this.fail(name, "a tensor's data has the wrong size", `${end - begin} bytes`, expected);
    }
    return { name, ...checked, offset: this.dataOffset + begin, bytes };
  }

  dtype(name: string, value: unknown): DType {
    const dtype = DTYPES_BY_NAME.get(value);
    if (dtype !== undefined) return dtype;
    if (!UNREAD_DTYPES.includes(value as string)) {
      const known = [...DTYPES_BY_NAME.keys()].join(" ");
      this.fail(name, "a tensor has an unknown type", value ?? "nothing", known, "dtype");
    }
    throw new HalftoneError("unsupported", "Cannot read a tensor of this type yet", {
      file: this.file,
      tensor: name,
      field: "dtype",
      found: value,
    });
  }

  shape(name: string, value: unknown): Shape {
    const { rank, dimension } = SAFETENSORS_LIMITS;
    const valid = Array.isArray(value) && value.length <= rank &&
      value.every((item) => Number.isSafeInteger(item) && item >= 0 && item <= dimension);
    if (valid) return value as number[];
    const expected = `at most ${rank} integers from 0 to ${dimension}`;
    return this.fail(name, "a tensor has no valid shape", value ?? "nothing", expected, "shape");
  }

  offsets(name: string, value: unknown): [number, number] {
    const available = this.fileSize - this.dataOffset;
    const isPair = Array.isArray(value) && value.length === 2 && value.every(Number.isSafeInteger);
    if (isPair && value[0] <= value[1] && value[1] <= available) return value as [number, number];
    const problem = isPair && value[0] <= value[1]
      ? "a tensor's data lies outside the file"
      : "a tensor has no valid data offsets";
    const expected = `[begin, end] with begin <= end <= ${available}`;
    return this.fail(name, problem, value ?? "nothing", expected, "data_offsets");
  }

  byteCount(name: string, dtype: DType, shape: Shape): number {
    // Not `elementCount`: the product must be checked at each step, and zeros must not hide an overflow.
    let count = itemSize(dtype);
    for (const dimension of shape) {
      count *= Math.max(1, dimension);
      if (count > Number.MAX_SAFE_INTEGER) {
        this.fail(name, "a tensor's size overflows", shape, undefined, "shape");
      }
    }
    return shape.includes(0) ? 0 : count;
  }

  fail(tensor: string, problem: string, found: unknown, expected?: string, field?: string): never {
    throw invalid(problem, { file: this.file, tensor, field, found, expected });
  }
}

/** No gap, no overlap, nothing after the last tensor. */
function checkContiguous(
  entries: readonly SafetensorsEntry[],
  dataOffset: number,
  fileSize: number,
  file?: string,
): void {
  let end = dataOffset;
  for (const { name, offset, bytes } of entries) {
    if (offset !== end) {
      const problem = offset < end ? "two tensors overlap" : "there is a hole in the data";
      throw invalid(problem, {
        file,
        tensor: name,
        field: "data_offsets",
        found: `begin ${offset - dataOffset}`,
        expected: `begin ${end - dataOffset}`,
      });
    }
    end += bytes;
  }
  if (end !== fileSize) {
    fail(file, "there are bytes after the last tensor", `${fileSize} bytes`, `${end} bytes`);
  }
}

/** All tensors of a whole file in memory; views into `bytes` where alignment allows. */
export function parseSafetensors(bytes: Uint8Array, file?: string): Map<string, HostTensor> {
  const { entries } = parseSafetensorsHeader(bytes, bytes.byteLength, file);
  return new Map(
    [...entries].map(([name, { dtype, shape, offset, bytes: length }]) => [
      name,
      new HostTensor(dtype, shape, bytes.subarray(offset, offset + length)),
    ]),
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fail(
  file: string | undefined,
  problem: string,
  found: unknown,
  expected?: string,
  field?: string,
): never {
  throw invalid(problem, { file, field, found, expected });
}

function invalid(problem: string, detail: ConstructorParameters<typeof HalftoneError>[2]) {
  return new HalftoneError("invalid_safetensors", `Cannot parse safetensors: ${problem}`, {
    ...detail,
    remedy: "The file is damaged or incomplete; fetch it again.",
  });
}
