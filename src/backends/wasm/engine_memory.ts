/** The one WebAssembly memory of a backend: arena, resident weights, tapes and scratch live in it. */

import { HalftoneError } from "../../errors.ts";
import { RegionAllocator } from "./region_allocator.ts";

const PAGE = 65536;
const MAX_PAGES = 65536;
/** Enough for the module's own data and stack before anything is allocated. */
const INITIAL_PAGES = 8;

/** A growing memory with its allocator and fresh views. */
export class EngineMemory {
  readonly memory: WebAssembly.Memory;
  /** Whether workers can see it. */
  readonly isShared: boolean;
  #allocator: RegionAllocator | undefined;

  constructor(shared: boolean) {
    this.isShared = shared;
    this.memory = new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum: MAX_PAGES, shared });
  }

  /** Starts handing out what lies above the module's own data. */
  startAllocating(heapBase: number): void {
    const grow = (end: number) => this.#growTo(end);
    this.#allocator = new RegionAllocator(heapBase, MAX_PAGES * PAGE, grow);
  }

  /** The allocator; only after `startAllocating`. */
  get allocator(): RegionAllocator {
    return this.#allocator!;
  }

  /** A view of `bytes` bytes; valid until the memory grows. */
  bytes(address: number, bytes: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, bytes);
  }

  /** A view of `count` words; valid until the memory grows. */
  words(address: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, count);
  }

  /** A view of `count` floats; valid until the memory grows. */
  floats(address: number, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, count);
  }

  #growTo(end: number): void {
    const missing = Math.ceil((end - this.memory.buffer.byteLength) / PAGE);
    if (missing <= 0) return;
    try {
      this.memory.grow(missing);
    } catch (cause) {
      throw new HalftoneError("out_of_memory", "Cannot grow the WebAssembly memory", {
        found: `${end} bytes asked`,
        remedy: "Use a smaller picture or quantized weights, or free memory",
      }, cause);
    }
  }
}
