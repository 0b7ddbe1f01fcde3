/** Stored tensors whose bytes are codes, or nearly so, piece by piece. */

import { type Piece, withPieceMemory } from "../tensor/piece_memory.ts";
import type { PieceReader, PutBytes } from "./quantizer.ts";
import { kernelsOver, type QuantizeExports } from "./wasm_kernels.ts";

/** Turns the bytes of a piece into codes, in place. */
export type CodeChange = (piece: Piece, kernels: QuantizeExports) => void;

/** Gives the codes of a tensor to `put`; as stored without a change. */
export async function streamCodes(
  tensor: string,
  checkpoint: PieceReader,
  put: PutBytes,
  { change, packed }: { readonly change?: CodeChange | null; readonly packed?: boolean } = {},
): Promise<void> {
  await withPieceMemory(async (memory) => {
    const kernels = await kernelsOver(memory);
    await checkpoint.readPieces(tensor, memory, (piece) => {
      change?.(piece, kernels);
      put(piece.bytes, piece.start);
    }, { packed });
  });
}

/** Signed bytes to codes around 128. */
export const flipSigns: CodeChange = ({ bytes }, kernels) => {
  kernels.flip_bits(bytes.byteOffset, bytes.length, 128);
};

/** Pairs of codes whose first is the high nibble. */
export const swapNibbles: CodeChange = ({ bytes }, kernels) => {
  kernels.swap_nibbles(bytes.byteOffset, bytes.length);
};
