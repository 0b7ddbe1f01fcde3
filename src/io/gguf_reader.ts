/** The header of a GGUF file, read by ranges, as a checkpoint has it. */

import type { ByteSource } from "../runtime/byte_source.ts";
import type { GgufBlockType } from "../quantization/gguf_types.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Shape } from "../tensor/shape.ts";
import { type GgufEntry, type GgufHeader, parseGgufHeader } from "./gguf.ts";
import { invalidGguf } from "./gguf_cursor.ts";

/** Bytes read at first; enough for any Flux. */
const FIRST_BYTES = 1 << 18;

/** A tensor as a checkpoint lists it. */
interface ReadEntry {
  readonly name: string;
  /** Of blocks uint8. */
  readonly dtype: DType;
  /** Of blocks with bytes for columns. */
  readonly shape: Shape;
  readonly offset: number;
  readonly bytes: number;
  readonly ggufType?: GgufBlockType;
}

/** What a checkpoint needs of a header. */
export interface ReadGguf {
  readonly entries: ReadonlyMap<string, ReadEntry>;
  /** The metadata that are text. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Reads and checks the header. Throws `invalid_gguf`, `unsupported`. */
export async function readGgufHeader(source: ByteSource): Promise<ReadGguf> {
  const header = await readWhole(source);
  const entries = [...header.entries.values()].map((entry) =>
    [entry.name, entryOf(entry)] as const
  );
  const texts = [...header.metadata].flatMap(([key, { value }]) =>
    typeof value === "string" ? [[key, value] as const] : []
  );
  return { entries: new Map(entries), metadata: Object.fromEntries(texts) };
}

async function readWhole(source: ByteSource): Promise<GgufHeader> {
  for (let length = FIRST_BYTES;; length *= 2) {
    const start = await source.read(0, Math.min(length, source.size));
    const header = parseGgufHeader(start, source.size, source.path);
    if (header !== null) return header;
    // Cannot be: a parser that has the whole file never waits for more.
    if (length >= source.size) throw invalidGguf("its header has no end", { file: source.path });
  }
}

function entryOf({ name, type, shape, offset, bytes }: GgufEntry): ReadEntry {
  if (type.dtype !== undefined) return { name, dtype: type.dtype, shape, offset, bytes };
  const columns = shape[shape.length - 1] / type.elements * type.bytes;
  const rows = shape.slice(0, -1);
  return {
    name,
    dtype: "uint8",
    shape: [...rows, columns],
    offset,
    bytes,
    ggufType: type.name as GgufBlockType,
  };
}
