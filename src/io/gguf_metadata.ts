/** The metadata of a GGUF file: typed key-value pairs. Tokenizers in them are passed over, not read. */

import type { GgufCursor } from "./gguf_cursor.ts";

/** Types of a value. */
export type GgufValueType =
  | "uint8"
  | "int8"
  | "uint16"
  | "int16"
  | "uint32"
  | "int32"
  | "float32"
  | "bool"
  | "string"
  | "array"
  | "uint64"
  | "int64"
  | "float64";

/** The types in the order of their numbers in files. */
export const GGUF_VALUE_TYPES: readonly GgufValueType[] = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
];

/** A value of a single item. */
export type GgufScalar = number | bigint | boolean | string;

/** A typed value. */
export interface GgufValue {
  readonly type: GgufValueType;
  /** The value; of arrays with more than `KEPT_ITEMS` items null: they are passed over. */
  readonly value: GgufScalar | readonly GgufScalar[] | null;
  /** The type of an array's items. */
  readonly itemType?: GgufValueType;
  /** How many items an array has. */
  readonly count?: number;
}

/** Key-value pairs in the order of the file. */
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** Longer arrays are vocabularies, which weights have no business with. */
export const KEPT_ITEMS = 64;

/** The limits that matter here. */
interface MetadataLimits {
  readonly stringBytes: number;
  readonly arrayItems: number;
  readonly keyBytes: number;
}

/** Bytes of an item; a string has at least its length. */
const ITEM_BYTES: Readonly<Record<GgufValueType, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  string: 8,
  array: 12,
  uint64: 8,
  int64: 8,
  float64: 8,
};

/** Reads `count` pairs. Throws `invalid_gguf`. */
export function readMetadata(
  cursor: GgufCursor,
  count: number,
  limits: MetadataLimits,
): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let index = 0; index < count; index++) {
    const key = cursor.string("key", limits.keyBytes);
    if (key === "") throw cursor.invalid("a key is empty", "key", key);
    if (metadata.has(key)) throw cursor.invalid("a key is there twice", key);
    metadata.set(key, readValue(cursor, key, limits));
  }
  return metadata;
}

function readValue(cursor: GgufCursor, key: string, limits: MetadataLimits): GgufValue {
  const type = readType(cursor, key);
  return type === "array"
    ? readArray(cursor, key, limits)
    : { type, value: readScalar(cursor, type, key, limits) };
}

function readType(cursor: GgufCursor, key: string): GgufValueType {
  const id = cursor.u32(key);
  const type = GGUF_VALUE_TYPES[id];
  if (type !== undefined) return type;
  throw cursor.invalid("a value has an unknown type", key, id, "0 to 12");
}

function readArray(cursor: GgufCursor, key: string, limits: MetadataLimits): GgufValue {
  const itemType = readType(cursor, key);
  if (itemType === "array") throw cursor.invalid("arrays lie within arrays", key);
  const count = cursor.u64(key);
  const most = Math.min(limits.arrayItems, Math.floor(cursor.remaining / ITEM_BYTES[itemType]));
  if (count > most) {
    throw cursor.invalid("an array is too long", key, count, `at most ${most} items`);
  }
  if (count > KEPT_ITEMS) {
    skipItems(cursor, itemType, count, key, limits);
    return { type: "array", itemType, count, value: null };
  }
  const value: GgufScalar[] = [];
  for (let item = 0; item < count; item++) {
    value.push(readScalar(cursor, itemType, key, limits));
  }
  return { type: "array", itemType, count, value };
}

function skipItems(
  cursor: GgufCursor,
  type: GgufValueType,
  count: number,
  key: string,
  limits: MetadataLimits,
): void {
  if (type !== "string") {
    cursor.take(count * ITEM_BYTES[type], key);
    return;
  }
  for (let item = 0; item < count; item++) cursor.skipString(key, limits.stringBytes);
}

function readScalar(
  cursor: GgufCursor,
  type: Exclude<GgufValueType, "array">,
  key: string,
  limits: MetadataLimits,
): GgufScalar {
  switch (type) {
    case "uint8":
      return cursor.number("Uint8", 1, key);
    case "int8":
      return cursor.number("Int8", 1, key);
    case "uint16":
      return cursor.number("Uint16", 2, key);
    case "int16":
      return cursor.number("Int16", 2, key);
    case "uint32":
      return cursor.number("Uint32", 4, key);
    case "int32":
      return cursor.number("Int32", 4, key);
    case "float32":
      return cursor.number("Float32", 4, key);
    case "float64":
      return cursor.number("Float64", 8, key);
    case "uint64":
      return cursor.bigint("BigUint64", key);
    case "int64":
      return cursor.bigint("BigInt64", key);
    case "bool":
      return readBoolean(cursor, key);
    case "string":
      return cursor.string(key, limits.stringBytes);
  }
}

function readBoolean(cursor: GgufCursor, key: string): boolean {
  const byte = cursor.number("Uint8", 1, key);
  if (byte <= 1) return byte === 1;
  throw cursor.invalid("a bool is neither 0 nor 1", key, byte);
}
