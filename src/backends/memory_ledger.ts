/** Counts the bytes a backend holds, by kind, and the most it ever held at once. */

import type { MemoryUse } from "./backend.ts";

/** What an allocation is for. */
export type MemoryKind = "weights" | "arena" | "scratch";

/** The running account of one backend. */
export class MemoryLedger {
  readonly #held: Record<MemoryKind, number> = { weights: 0, arena: 0, scratch: 0 };
  #peak = 0;

  /** Records an allocation of `bytes`. */
  take(kind: MemoryKind, bytes: number): void {
    this.#held[kind] += bytes;
    this.#peak = Math.max(this.#peak, this.#total());
  }

  /** Records that `bytes` were freed. */
  free(kind: MemoryKind, bytes: number): void {
    this.#held[kind] -= bytes;
  }

  /** The account as it stands. */
  use(): MemoryUse {
    return { ...this.#held, peak: this.#peak };
  }

  #total(): number {
    return this.#held.weights + this.#held.arena + this.#held.scratch;
  }
}
