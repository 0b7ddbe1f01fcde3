/** Hands out regions of one growing address space; first fit, everything aligned to 64 bytes. */

import { HalftoneError } from "../../errors.ts";
import { aligned, ALIGNMENT } from "../alignment.ts";

/** What a region is for, as `MemoryUse` counts it. */
export type RegionUse = "weights" | "arena" | "scratch";

interface FreeRegion {
  address: number;
  bytes: number;
}

/** A first-fit allocator that counts what is used for what, now and at most. */
export class RegionAllocator {
  /** Bytes in use. */
  readonly used: Record<RegionUse, number> = { weights: 0, arena: 0, scratch: 0 };
  /** Most bytes in use at once. */
  peak = 0;
  readonly #regions = new Map<number, { bytes: number; use: RegionUse }>();
  readonly #free: FreeRegion[] = []; // by address, never adjacent
  readonly #grow: (end: number) => void;
  readonly #limit: number;
  #end: number;

  /** Regions start at `start` and end below `limit`; `grow(end)` makes memory reach `end`. */
  constructor(start: number, limit: number, grow: (end: number) => void) {
    this.#end = aligned(start);
    this.#limit = limit;
    this.#grow = grow;
  }

  /** A region of at least `bytes`; throws out_of_memory when the address space is full. */
  allocate(bytes: number, use: RegionUse): number {
    const size = Math.max(aligned(bytes), ALIGNMENT);
    const address = this.#takeFree(size) ?? this.#extend(size);
    this.#regions.set(address, { bytes: size, use });
    this.used[use] += size;
    this.peak = Math.max(this.peak, this.used.weights + this.used.arena + this.used.scratch);
    return address;
  }

  /**
   * Makes memory reach as far as regions of so many bytes in all need at least. One growth costs an engine
   * less than many: it collects garbage now and then when a memory has grown.
   */
  reserve(bytes: number): void {
    const missing = bytes - this.#free.reduce((sum, region) => sum + region.bytes, 0);
    if (missing > 0 && this.#end + missing <= this.#limit) this.#grow(this.#end + missing);
  }

  /** Gives a region back. */
  free(address: number): void {
    const region = this.#regions.get(address);
    if (!region) return;
    this.#regions.delete(address);
    this.used[region.use] -= region.bytes;
    this.#insertFree({ address, bytes: region.bytes });
  }

  #takeFree(bytes: number): number | undefined {
    const index = this.#free.findIndex((region) => region.bytes >= bytes);
    if (index < 0) return undefined;
    const region = this.#free[index];
    const address = region.address;
    region.address += bytes;
    region.bytes -= bytes;
    if (region.bytes === 0) this.#free.splice(index, 1);
    return address;
  }

  #extend(bytes: number): number {
    const last = this.#free.at(-1);
    const joins = last !== undefined && last.address + last.bytes === this.#end;
    const address = joins ? last.address : this.#end;
    if (address + bytes > this.#limit) throw outOfMemory(bytes, this.#limit - address);
    this.#grow(address + bytes);
    if (joins) this.#free.pop();
    this.#end = address + bytes;
    return address;
  }

  #insertFree(region: FreeRegion): void {
    let index = this.#free.findIndex((other) => other.address > region.address);
    if (index < 0) index = this.#free.length;
    this.#free.splice(index, 0, region);
    this.#joinNext(index);
    if (index > 0) this.#joinNext(index - 1);
  }

  #joinNext(index: number): void {
    const [region, next] = [this.#free[index], this.#free[index + 1]];
    if (next === undefined || region.address + region.bytes !== next.address) return;
    region.bytes += next.bytes;
    this.#free.splice(index + 1, 1);
  }
}

function outOfMemory(bytes: number, left: number): HalftoneError {
  return new HalftoneError("out_of_memory", "Cannot allocate WebAssembly memory", {
    found: `${bytes} bytes asked`,
    expected: `at most ${Math.max(left, 0)} bytes`,
    remedy: "Use a smaller picture, quantized weights, or a smaller residentWeightBytes",
  });
}
