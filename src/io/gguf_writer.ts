/** Writing GGUF version 3, byte for byte as gguf-py does. */

import { createAtomicFile } from "../runtime/atomic_file.ts";
import { type GgufType, ggufTypeInfo } from "../quantization/gguf_types.ts";
import type { Shape } from "../tensor/shape.ts";
import { padded } from "./gguf.ts";
import {
  GGUF_VALUE_TYPES,
  type GgufScalar,
  type GgufValue,
  type GgufValueType,
} from "./gguf_metadata.ts";

/** What the header needs to know of a tensor. */
export interface GgufTensorDescription {
  /** The name to store it under. */
  readonly name: string;
  readonly type: GgufType;
  /** The dimensions, outermost first. */
  readonly shape: Shape;
}

/** Pairs in the order to write them. */
export type GgufPairs = readonly (readonly [key: string, value: GgufValue])[];

/** Data begin at multiples of it. */
const ALIGNMENT = 32;

/** Bytes of a tensor without padding. */
export function ggufTensorBytes({ type, shape }: GgufTensorDescription): number {
  const { elements, bytes } = ggufTypeInfo(type);
  return shape.reduce((product, dimension) => product * dimension, 1) / elements * bytes;
}

/** Everything before the data, padded. */
export function ggufHeader(
  tensors: readonly GgufTensorDescription[],
  metadata: GgufPairs,
): Uint8Array {
  const writer = new FieldWriter();
  writer.bytes(new TextEncoder().encode("GGUF"));
  writer.u32(3);
  writer.u64(tensors.length);
  writer.u64(metadata.length);
  for (const [key, value] of metadata) writer.pair(key, value);
  let offset = 0;
  for (const tensor of tensors) {
    writer.info(tensor, offset);
    offset = padded(offset + ggufTensorBytes(tensor), ALIGNMENT);
  }
  return writer.finish(ALIGNMENT);
}

/** A whole file in memory; `data` in the order of `tensors`. */
export function serializeGguf(
  tensors: readonly (GgufTensorDescription & { readonly data: Uint8Array })[],
  metadata: GgufPairs,
): Uint8Array {
  const header = ggufHeader(tensors, metadata);
  const parts = [header];
  for (const { data } of tensors) parts.push(data, padding(data.byteLength));
  const file = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let position = 0;
  for (const part of parts) {
    file.set(part, position);
    position += part.byteLength;
  }
  return file;
}

/**
 * Writes a file as its tensors' bytes come: for each tensor in order, the chunks of its data. The file
 * appears whole or not at all. Throws `write_failed`.
 */
export async function writeGguf(
  path: string,
  tensors: readonly GgufTensorDescription[],
  metadata: GgufPairs,
  data: (tensor: GgufTensorDescription, index: number) => AsyncIterable<Uint8Array>,
): Promise<void> {
  const file = await createAtomicFile(path);
  try {
    await file.write(ggufHeader(tensors, metadata));
    for (const [index, tensor] of tensors.entries()) {
      for await (const chunk of data(tensor, index)) await file.write(chunk);
      await file.write(padding(ggufTensorBytes(tensor)));
    }
    await file.commit();
  } finally {
    await file.abort();
  }
}

function padding(bytes: number): Uint8Array {
  return new Uint8Array(padded(bytes, ALIGNMENT) - bytes);
}

/** Grows as fields are appended. */
class FieldWriter {
  #buffer = new Uint8Array(4096);
  #length = 0;

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.byteLength);
    this.#buffer.set(bytes, this.#length - bytes.byteLength);
  }

  u32(value: number): void {
    this.#reserve(4).setUint32(0, value, true);
  }

  u64(value: number | bigint): void {
    this.#reserve(8).setBigUint64(0, BigInt(value), true);
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.byteLength);
    this.bytes(bytes);
  }

  pair(key: string, { type, value, itemType = "uint8" }: GgufValue): void {
    this.string(key);
    this.u32(GGUF_VALUE_TYPES.indexOf(type));
    if (type !== "array") return this.scalar(type, value as GgufScalar);
    const items = value as readonly GgufScalar[];
    this.u32(GGUF_VALUE_TYPES.indexOf(itemType));
    this.u64(items.length);
    for (const item of items) this.scalar(itemType, item);
  }

  info({ name, type, shape }: GgufTensorDescription, offset: number): void {
    this.string(name);
    this.u32(shape.length);
    for (const dimension of shape.toReversed()) this.u64(dimension);
    this.u32(ggufTypeInfo(type).id);
    this.u64(offset);
  }

  scalar(type: GgufValueType, value: GgufScalar): void {
    switch (type) {
      case "string":
        return this.string(String(value));
      case "uint64":
        return this.u64(value as bigint);
      case "int64":
        return this.#reserve(8).setBigInt64(0, BigInt(value as bigint), true);
      case "float64":
        return this.#reserve(8).setFloat64(0, Number(value), true);
      case "float32":
        return this.#reserve(4).setFloat32(0, Number(value), true);
      case "uint32":
        return this.u32(Number(value));
      case "int32":
        return this.#reserve(4).setInt32(0, Number(value), true);
      case "uint16":
      case "int16":
        return this.#reserve(2).setUint16(0, Number(value), true);
      default:
        return this.#reserve(1).setUint8(0, Number(value));
    }
  }

  finish(alignment: number): Uint8Array {
    this.bytes(new Uint8Array(padded(this.#length, alignment) - this.#length));
    return this.#buffer.slice(0, this.#length);
  }

  /** Appends `count` bytes and gives a view of them. */
  #reserve(count: number): DataView {
    const start = this.#length;
    this.#length += count;
    if (this.#length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#buffer.length));
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    return new DataView(this.#buffer.buffer, start, count);
  }
}
