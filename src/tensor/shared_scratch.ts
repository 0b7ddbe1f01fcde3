/** Shared memory for data that are used up at once, on which kernels of several threads can work in place. */

const PAGE_BYTES = 65536;
const ALIGNMENT = 64;
/** Memory grows by whole steps of this. */
const STEP_BYTES = 16 * 2 ** 20;
/** What does not fit gets memory of its own. */
const LARGEST_BYTES = 2 ** 30;
/** Left to the data of kernels, which lie first. */
const KERNEL_BYTES = 2 ** 17;
/** Behind the last piece: kernels may read a little further. */
const SLACK = 64;

/** A memory that workers can be sent. */
export interface SharedMemory {
  readonly memory: WebAssembly.Memory;
  /** Another one after the memory has grown: the objects of workers know their old length. */
  readonly id: number;
}

/** Memories so far. */
let memories = 0;

/**
 * Shared bytes to take piece by piece until `reset`, which takes all pieces back. The pieces are not cleared.
 * All lie in one WebAssembly memory, so kernels need no copies of them.
 */
export class SharedScratch {
  readonly #buffers = new WeakSet<ArrayBufferLike>();
  #shared: SharedMemory | undefined;
  #end = KERNEL_BYTES;

  /** Takes back all pieces: their bytes will change. */
  reset(): void {
    this.#end = KERNEL_BYTES;
  }

  /** A piece of so many bytes, aligned to 64. Throws a RangeError when there is no such memory. */
  take(count: number): Uint8Array<SharedArrayBuffer> {
    const start = Math.ceil(this.#end / ALIGNMENT) * ALIGNMENT;
    const end = start + count;
    if (end + SLACK > LARGEST_BYTES) return new Uint8Array(new SharedArrayBuffer(count));
    const { buffer } = this.#reaching(end + SLACK);
    this.#end = end;
    return new Uint8Array(buffer as SharedArrayBuffer, start, count);
  }

  /** The memory that all these pieces lie in; null when one does not. */
  memoryOf(...pieces: readonly Uint8Array[]): SharedMemory | null {
    return pieces.every(({ buffer }) => this.#buffers.has(buffer)) ? this.#shared ?? null : null;
  }

  /** The memory, with at least so many bytes. */
  #reaching(bytes: number): WebAssembly.Memory {
    const memory = this.#shared?.memory ??
      new WebAssembly.Memory({ initial: 0, maximum: LARGEST_BYTES / PAGE_BYTES, shared: true });
    const missing = bytes - memory.buffer.byteLength;
    if (missing > 0) {
      const grown = Math.ceil(missing / STEP_BYTES) * STEP_BYTES;
      memory.grow(grown / PAGE_BYTES);
      countBytes(grown);
      this.#buffers.add(memory.buffer);
      this.#shared = { memory, id: ++memories };
    }
    return memory;
  }
}

/**
 * V8 does not count shared memory when it decides to collect garbage: left alone, the weights of a whole model
 * would stay. So it sees a plain buffer of the size, which nobody touches.
 */
export function countBytes(length: number): void {
  new ArrayBuffer(length);
}
