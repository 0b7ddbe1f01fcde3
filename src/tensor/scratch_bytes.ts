/** Memory for data that are used up at once, so that the same pages serve again and again. */

import { SharedScratch } from "./shared_scratch.ts";

const PAGE_BYTES = 65536;
const ALIGNMENT = 64;
/** Memory grows by whole steps of this. */
const STEP_BYTES = 16 * 2 ** 20;
/** Larger pieces get memory of their own. */
const LARGEST_BYTES = 2 ** 30;

/**
 * Bytes to take piece by piece until `reset`, which takes all pieces back. The pieces are not cleared. It is a
 * WebAssembly memory, because fresh buffers cost more than reading into them: a page fault every 4 KiB.
 */
export class ScratchBytes {
  /** For what threads share. */
  readonly shared: SharedScratch = new SharedScratch();
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #end = 0;

  /** Takes back all pieces: their bytes will change. */
  reset(): void {
    this.#end = 0;
    this.shared.reset();
  }

  /** A piece of so many bytes, aligned to 64. Throws a RangeError when there is no such memory. */
  take(count: number): Uint8Array<ArrayBuffer> {
    if (count > LARGEST_BYTES) return new Uint8Array(count);
    const start = Math.ceil(this.#end / ALIGNMENT) * ALIGNMENT;
    if (start + count > this.#bytes.byteLength) return this.#grow(count);
    this.#end = start + count;
    return this.#bytes.subarray(start, this.#end);
  }

  /** Pieces taken before keep the old memory alive. */
  #grow(count: number): Uint8Array<ArrayBuffer> {
    const bytes = Math.ceil((this.#bytes.byteLength + count) / STEP_BYTES) * STEP_BYTES;
    const pages = Math.min(bytes, LARGEST_BYTES) / PAGE_BYTES;
    const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.#bytes = new Uint8Array(buffer as ArrayBuffer);
    this.#end = count;
    return this.#bytes.subarray(0, count);
  }
}
