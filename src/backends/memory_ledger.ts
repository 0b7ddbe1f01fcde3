/** Counts the bytes a backend holds, by kind, and the most it ever held at once. */

import type { MemoryUse } from "./backend.ts";

/** What an allocation is for. */
export type MemoryKind = "weights" | "arena" | "scratch";

/** The running account of one backend. */
export class MemoryLedger {
  readonly #held: Record<MemoryKind, number> = { weights: 0, arena: 0, scratch: 0 };
  #peak = 0;
  #outside = 0;
  #devicePeak = 0;

  /** Records an allocation of `bytes`, `outside` the device where it is in the host's memory. */
  take(kind: MemoryKind, bytes: number, outside = false): void {
    this.#held[kind] += bytes;
    if (outside) this.#outside += bytes;
    this.#peak = Math.max(this.#peak, this.#total());
    this.#devicePeak = Math.max(this.#devicePeak, this.#total() - this.#outside);
  }

  /** Records that `bytes` were freed. */
  free(kind: MemoryKind, bytes: number, outside = false): void {
    this.#held[kind] -= bytes;
    if (outside) this.#outside -= bytes;
  }

  /** The most bytes at once that were not outside. */
  get devicePeak(): number {
    return this.#devicePeak;
  }

  /** The account as it stands. */
  use(): MemoryUse {
    return { ...this.#held, peak: this.#peak };
  }

  #total(): number {
    return this.#held.weights + this.#held.arena + this.#held.scratch;
  }
}
