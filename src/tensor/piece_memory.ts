/** Small memory that large tensors pass through piece by piece, so that their bytes are still in the cache. */

/** Bytes of a piece at most. */
export const PIECE_BYTES: number = 2 ** 19;

const PAGE_BYTES = 65536;
/** Left to the data and the stack of kernels, which lie first. */
const KERNEL_BYTES = 2 ** 17;
/** Kernels may read and write a little behind a piece. */
const SLACK = 64;
/** What is made of a piece may come as so many streams. */
const STREAMS = 5;
const INPUTS = [KERNEL_BYTES, KERNEL_BYTES + PIECE_BYTES + SLACK] as const;
const OUTPUT = INPUTS[1] + PIECE_BYTES + SLACK;
const PAGES = Math.ceil((OUTPUT + PIECE_BYTES + STREAMS * SLACK) / PAGE_BYTES);

/** A piece of a tensor; it lies in piece memory and is valid until the next one. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** Where it begins in the tensor, in bytes. */
  readonly start: number;
}

/** How a tensor is cut. */
export interface Cut {
  /** A piece is whole runs of so many bytes, such as elements or blocks. */
  readonly unit: number;
}

/** Room for two pieces, of which one is read while the other is worked on, and for what is made of them. */
export class PieceMemory {
  /** Over which kernels may be instantiated. */
  readonly memory: WebAssembly.Memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES });
  /** Where the results of kernels go: as many bytes as a piece has, and some for each of five streams. */
  readonly output: number = OUTPUT;
  readonly #bytes = new Uint8Array(this.memory.buffer);

  /** The place of a piece of even or odd number. */
  input(number: number, length: number): Uint8Array {
    const start = INPUTS[number % 2];
    return this.#bytes.subarray(start, start + length);
  }

  /** A view of any bytes. */
  view(address: number, length: number): Uint8Array {
    return this.#bytes.subarray(address, address + length);
  }
}

/** Bytes of the pieces of a tensor (the last may be shorter). */
export function pieceBytes({ unit }: Cut): number {
  return Math.max(1, Math.floor(PIECE_BYTES / unit)) * unit;
}

/** Passes bytes through piece memory. */
export function piecesOf(
  bytes: Uint8Array,
  memory: PieceMemory,
  cut: Cut,
  take: (piece: Piece) => void,
): void {
  const step = pieceBytes(cut);
  for (let start = 0; start < bytes.length; start += step) {
    const part = bytes.subarray(start, start + step);
    const piece = memory.input(0, part.length);
    piece.set(part);
    take({ bytes: piece, start });
  }
}

/** Memories that nobody uses now. */
const idle: PieceMemory[] = [];

/** Lends piece memory to an action. */
export async function withPieceMemory<Result>(
  action: (memory: PieceMemory) => Promise<Result>,
): Promise<Result> {
  const memory = idle.pop() ?? new PieceMemory();
  try {
    return await action(memory);
  } finally {
    idle.push(memory);
  }
}

/** Whether there can be such memory. */
export function hasPieceMemory(): boolean {
  return typeof WebAssembly === "object";
}
