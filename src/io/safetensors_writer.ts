/** Writing safetensors, byte for byte as the Python library does: same order, same header text. */

import { type DType, itemSize } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import { PREFIX_BYTES, SAFETENSORS_DTYPES } from "./safetensors.ts";

/** What the header needs to know of a tensor. */
export interface TensorDescription {
  /** The name to store it under. */
  readonly name: string;
  /** The element type. */
  readonly dtype: DType;
  /** The dimensions, outermost first. */
  readonly shape: Shape;
}

/** A header and the order in which the data must follow. */
export interface SafetensorsLayout<Description extends TensorDescription = TensorDescription> {
  /** The header's length and the header, padded with spaces to a multiple of 8. */
  readonly header: Uint8Array;
  /** The tensors in the order of their data. */
  readonly order: readonly Description[];
  /** Bytes of the whole file. */
  readonly fileSize: number;
}

/** Header name and place in the order of data, by element type. */
const DTYPE_RANKS = new Map(
  SAFETENSORS_DTYPES.map(([dtype, name], rank) => [dtype, { name, rank }]),
);

/** Lays out a file. The default metadata is what Diffusers and Transformers write. */
export function layoutSafetensors<Description extends TensorDescription>(
  tensors: Iterable<Description>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): SafetensorsLayout<Description> {
  const order = [...tensors].sort((a, b) =>
    DTYPE_RANKS.get(a.dtype)!.rank - DTYPE_RANKS.get(b.dtype)!.rank || compareNames(a.name, b.name)
  );
  const entries = Object.keys(metadata).length > 0 ? [member("__metadata__", metadata)] : [];
  let offset = 0;
  for (const { name, dtype, shape } of order) {
    const end = offset + elementCount(shape) * itemSize(dtype);
    entries.push(
      member(name, { dtype: DTYPE_RANKS.get(dtype)!.name, shape, data_offsets: [offset, end] }),
    );
    offset = end;
  }
  const header = padded(new TextEncoder().encode(`{${entries.join(",")}}`));
  return { header, order, fileSize: header.byteLength + offset };
}

// Not one JSON.stringify over an object: that would move keys such as "12" to the front.
function member(key: string, value: unknown): string {
  return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
}

/** A whole file in memory. */
export function serializeSafetensors(
  tensors: Readonly<Record<string, HostTensor>> | ReadonlyMap<string, HostTensor>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const named = tensors instanceof Map ? [...tensors] : Object.entries(tensors);
  const layout = layoutSafetensors(
    named.map(([name, tensor]) => ({ name, dtype: tensor.dtype, shape: tensor.shape, tensor })),
    metadata,
  );
  const file = new Uint8Array(layout.fileSize);
  file.set(layout.header);
  let offset = layout.header.byteLength;
  for (const { tensor } of layout.order) {
    file.set(tensor.bytes, offset);
    offset += tensor.bytes.byteLength;
  }
  return file;
}

function padded(json: Uint8Array): Uint8Array {
  const length = Math.ceil(json.byteLength / 8) * 8;
  const header = new Uint8Array(PREFIX_BYTES + length).fill(" ".charCodeAt(0));
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(json, PREFIX_BYTES);
  return header;
}

/** Orders names by code point, as UTF-8 bytes sort; `<` on strings sorts by UTF-16 units. */
export function compareNames(a: string, b: string): number {
  const left = [...a];
  const right = [...b];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = left[i].codePointAt(0)! - right[i].codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
