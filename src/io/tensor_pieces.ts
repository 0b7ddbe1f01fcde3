/** A tensor of a file, piece by piece: while one piece is worked on, the next is read. */

import { type GgufBlockType, ggufTypeInfo } from "../quantization/gguf_types.ts";
import type { ByteSource } from "../runtime/byte_source.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import { type Piece, pieceBytes, type PieceMemory } from "../tensor/piece_memory.ts";

/** Where the bytes of a tensor are. */
export interface StoredBytes {
  readonly source: ByteSource;
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: DType;
  readonly ggufType?: GgufBlockType;
}

/** Passes the bytes through piece memory. No read is under way when it returns or throws. */
export async function readPieces(
  stored: StoredBytes,
  through: PieceMemory,
  take: (piece: Piece) => void,
): Promise<void> {
  if (stored.bytes === 0) return;
  const step = pieceBytes({ unit: unitOf(stored) });
  let next = readPiece(stored, 0, step, through);
  for (let start = 0; start < stored.bytes; start += step) {
    const piece = await next;
    if (start + step < stored.bytes) next = readPiece(stored, start + step, step, through);
    try {
      take(piece);
    } catch (error) {
      await next.catch(() => {});
      throw error;
    }
  }
}

/** Bytes that stay together. */
function unitOf({ dtype, ggufType }: StoredBytes): number {
  return ggufType ? ggufTypeInfo(ggufType).bytes : itemSize(dtype);
}

async function readPiece(
  { source, offset, bytes }: StoredBytes,
  start: number,
  step: number,
  through: PieceMemory,
): Promise<Piece> {
  const length = Math.min(step, bytes - start);
  const place = through.input(start / step, length);
  return { bytes: await source.read(offset + start, length, place), start };
}
