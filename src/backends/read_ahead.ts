/** Begins to make a weight while the backend still puts the one before into its place. */

import type { PlanWeight } from "../plan/plan.ts";
import { ScratchBytes } from "../tensor/scratch_bytes.ts";
import type { StoredWeight, WeightRest, WeightSource } from "./backend.ts";

interface Begun {
  readonly weight: PlanWeight;
  readonly stored: Promise<StoredWeight>;
}

/**
 * A source whose weights are read one after another, in the order of a list, and which has the scratch memory for
 * that: what a call gave is used up when the next one comes.
 */
export class ReadAhead implements WeightSource {
  readonly #source: WeightSource;
  readonly #weights: readonly PlanWeight[];
  /** Of the weight at hand, and of the one that is begun. */
  #scratches: readonly [ScratchBytes, ScratchBytes] = [new ScratchBytes(), new ScratchBytes()];
  #begun: Begun | null = null;

  constructor(source: WeightSource, weights: readonly PlanWeight[]) {
    this.#source = source;
    this.#weights = weights;
  }

  async read(weight: PlanWeight): Promise<StoredWeight> {
    const stored = this.#take(weight) ?? this.#source.read(weight, this.#own());
    this.#begin(this.#weights[this.#weights.indexOf(weight) + 1]);
    return await stored;
  }

  async stream(
    weight: PlanWeight,
    put: (bytes: Uint8Array, start: number) => void,
  ): Promise<WeightRest | null> {
    return await this.#source.stream?.(weight, put, this.#own()) ?? null;
  }

  /** Waits for what was begun and nobody asks for any more. */
  async settle(): Promise<void> {
    await this.#begun?.stored.catch(() => {});
    this.#begun = null;
  }

  #own(): ScratchBytes {
    const [own] = this.#scratches;
    own.reset();
    return own;
  }

  /** The weight if it was begun: its scratch becomes that of the weight at hand. */
  #take(weight: PlanWeight): Promise<StoredWeight> | null {
    if (this.#begun?.weight !== weight) return null;
    const { stored } = this.#begun;
    const [old, taken] = this.#scratches;
    this.#scratches = [taken, old];
    this.#begun = null;
    return stored;
  }

  /** Begins a weight; what fails is told when somebody asks for it. */
  #begin(weight: PlanWeight | undefined): void {
    if (!weight || this.#begun || !this.#source.isMade?.(weight)) return;
    const [, scratch] = this.#scratches;
    scratch.reset();
    const stored = this.#source.read(weight, scratch);
    stored.catch(() => {});
    this.#begun = { weight, stored };
  }
}
