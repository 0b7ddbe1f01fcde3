/** How one weight is read: as a whole, or piece by piece with its elements or codes given away as they come. */

import type { StoredWeight, WeightRest } from "../backends/backend.ts";
import type { WeightInfo } from "../ops/graph.ts";
import type { PlanWeight } from "../plan/plan.ts";
import { hasPieceMemory, withPieceMemory } from "../tensor/piece_memory.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import { elementCount } from "../tensor/shape.ts";
import type { PieceReader, PutBytes, TensorReader } from "./quantizer.ts";

/** What a weight is and how it is read. */
export interface Loader {
  readonly info: WeightInfo;
  /** From the checkpoint, which may read into scratch memory; results may lie there too. */
  read(checkpoint: TensorReader, scratch?: ScratchBytes): Promise<StoredWeight>;
  /** Whether reading quantizes it, which workers do. */
  readonly isMade?: boolean;
  /** The same with its elements or codes given to `put`; null or absent where it is read as a whole. */
  stream?(
    checkpoint: PieceReader,
    put: PutBytes,
    scratch?: ScratchBytes,
  ): Promise<WeightRest | null>;
}

/** The same checkpoint, reading into scratch memory. */
export function readingInto(checkpoint: TensorReader, scratch: ScratchBytes): TensorReader {
  const { entries, metadata } = checkpoint;
  return {
    entries,
    metadata,
    read: (name, options) => checkpoint.read(name, { ...options, scratch }),
    readPieces: checkpoint.readPieces &&
      ((...request) => checkpoint.readPieces!(...request)),
  };
}

/** Gives the elements or codes of a weight to `put` where they need no change of order or type. */
export async function streamWeight(
  { name, shape, arrangement, format }: PlanWeight,
  weights: ReadonlyMap<string, Loader>,
  checkpoint: TensorReader,
  put: PutBytes,
  scratch?: ScratchBytes,
): Promise<WeightRest | null> {
  const { info, stream } = weights.get(name) ?? {};
  if (!info || !stream || !checkpoint.readPieces || !hasPieceMemory()) return null;
  const isSame = elementCount(info.shape) === elementCount(shape) &&
    arrangement !== "convolution" && isSameFormat(info.format, format);
  if (!isSame) return null;
  const from = scratch ? readingInto(checkpoint, scratch) : checkpoint;
  return await stream(from as PieceReader, put, scratch);
}

function isSameFormat(stored: WeightInfo["format"], planned: PlanWeight["format"]): boolean {
  return stored.kind === planned.kind &&
    (stored.kind !== "dense" || planned.kind !== "dense" || stored.dtype === planned.dtype);
}

/** Gives a dense weight away as it is stored. */
export async function streamDense(
  name: string,
  checkpoint: PieceReader,
  put: PutBytes,
): Promise<WeightRest> {
  await withPieceMemory((memory) => {
    return checkpoint.readPieces(name, memory, ({ bytes, start }) => put(bytes, start));
  });
  return { kind: "dense" };
}
