/** A checkpoint under other names: tensors made of rows of another one's tensors, moved as bytes. */

import { HalftoneError } from "../errors.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Piece, PieceMemory } from "../tensor/piece_memory.ts";
import { sameShape } from "../tensor/shape.ts";
import {
  type Checkpoint,
  type PieceOptions,
  type ReadOptions,
  rowsOf,
  type TensorEntry,
} from "./checkpoint.ts";

/**
 * Rows [start, end) of a tensor; rows are whole blocks in every format, so no value changes. A single
 * number without dimensions is one row.
 */
export interface TensorPart {
  readonly source: string;
  readonly start: number;
  readonly end: number;
}

/** A tensor of the view: the parts, one above the other. */
export interface TensorView {
  readonly name: string;
  readonly parts: readonly TensorPart[];
}

/**
 * A checkpoint of just these tensors; closing it closes the other. Throws `missing_tensor`,
 * `tensor_shape_mismatch` when parts do not fit together.
 */
export function viewCheckpoint(checkpoint: Checkpoint, views: readonly TensorView[]): Checkpoint {
  const entries = new Map<string, TensorEntry>();
  const parts = new Map<string, readonly TensorPart[]>();
  for (const view of views) {
    entries.set(view.name, entryOf(view, checkpoint));
    parts.set(view.name, view.parts);
  }
  return {
    path: checkpoint.path,
    entries,
    metadata: checkpoint.metadata,
    read: (name, options) => {
      const entry = entries.get(name);
      // An unknown name is the other checkpoint's to complain about.
      if (entry === undefined) return checkpoint.read(name, options);
      return readParts(entry, parts.get(name)!, checkpoint, options);
    },
    readRows: (name, start, end, options) => {
      const entry = entries.get(name);
      if (entry === undefined) return checkpoint.readRows(name, start, end, options);
      const rows = rowsOf(entry, start, end);
      return readParts(rows, partsWithin(parts.get(name)!, start, end), checkpoint, options);
    },
    readPieces: (name, through, take, options = {}) => {
      const entry = entries.get(name);
      if (entry === undefined) return checkpoint.readPieces(name, through, take, options);
      const { rows } = options;
      if (rows) rowsOf(entry, ...rows); // which throws when they are not there
      const chosen = rows ? partsWithin(parts.get(name)!, ...rows) : parts.get(name)!;
      return passParts(chosen, checkpoint, through, take, options);
    },
    close: () => checkpoint.close(),
  };
}

async function passParts(
  parts: readonly TensorPart[],
  checkpoint: Checkpoint,
  through: PieceMemory,
  take: (piece: Piece) => void,
  { packed }: PieceOptions,
): Promise<void> {
  let end = 0;
  for (const part of parts) {
    const before = end;
    const rows = isWhole(part, checkpoint) ? undefined : [part.start, part.end] as const;
    await checkpoint.readPieces(part.source, through, ({ bytes, start }) => {
      take({ bytes, start: before + start });
      end = before + start + bytes.length;
    }, { packed, rows });
  }
}

async function readParts(
  entry: TensorEntry,
  parts: readonly TensorPart[],
  checkpoint: Checkpoint,
  options: ReadOptions = {},
): Promise<HostTensor> {
  if (parts.length === 1) {
    const [{ source, start, end }] = parts;
    return isWhole(parts[0], checkpoint)
      ? await checkpoint.read(source, options)
      : await checkpoint.readRows(source, start, end, options);
  }
  const whole = HostTensor.zeros(entry.dtype, entry.shape, { shared: options.shared });
  let at = 0;
  for (const { source, start, end } of parts) {
    const { bytes } = await checkpoint.readRows(source, start, end, { ...options, shared: false });
    whole.bytes.set(bytes, at);
    at += bytes.byteLength;
  }
  return whole;
}

function isWhole({ source, start, end }: TensorPart, checkpoint: Checkpoint): boolean {
  const entry = checkpoint.entries.get(source);
  return start === 0 && end === (entry?.shape[0] ?? 1);
}

/** The parts, or parts of them, that make rows [start, end) of a view. */
function partsWithin(parts: readonly TensorPart[], start: number, end: number): TensorPart[] {
  if (parts.length === 1) {
    return [{ ...parts[0], start: parts[0].start + start, end: parts[0].start + end }];
  }
  let at = 0;
  return parts.flatMap((part) => {
    const first = part.start - at;
    at += part.end - part.start;
    const within = {
      source: part.source,
      start: Math.max(part.start, first + start),
      end: Math.min(part.end, first + end),
    };
    return within.start < within.end ? [within] : [];
  });
}

function entryOf({ name, parts }: TensorView, checkpoint: Checkpoint): TensorEntry {
  const sources = parts.map(({ source }) => sourceOf(source, checkpoint));
  const [first] = sources;
  if (first.shape.length === 0 && isWhole(parts[0], checkpoint)) return { ...first, name };
  let rows = 0, bytes = 0;
  parts.forEach((part, index) => {
    checkPart(name, part, sources[index], first);
    rows += part.end - part.start;
    bytes += sources[index].bytes / sources[index].shape[0] * (part.end - part.start);
  });
  return { ...first, name, bytes, shape: [rows, ...first.shape.slice(1)] };
}

function sourceOf(name: string, checkpoint: Checkpoint): TensorEntry {
  const entry = checkpoint.entries.get(name);
  if (entry !== undefined) return entry;
  throw new HalftoneError("missing_tensor", "Cannot find a tensor in the checkpoint", {
    file: checkpoint.path,
    tensor: name,
    remedy: "The file is incomplete or belongs to another kind of model.",
  });
}

function checkPart(name: string, part: TensorPart, entry: TensorEntry, first: TensorEntry): void {
  const { source, start, end } = part;
  const whole = Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start < end &&
    end <= entry.shape[0];
  const alike = entry.dtype === first.dtype && entry.ggufType === first.ggufType &&
    sameShape(entry.shape.slice(1), first.shape.slice(1));
  if (whole && alike) return;
  throw new HalftoneError(
    "tensor_shape_mismatch",
    "Cannot take a tensor apart or put it together",
    {
      file: entry.file,
      tensor: source,
      found: `${entry.ggufType ?? entry.dtype} [${entry.shape}]`,
      expected: `rows ${start} to ${end} for ${name}, of ${first.ggufType ?? first.dtype}`,
    },
  );
}
