/** Weights of the reference backend: kept as they are stored, in host memory. */

import { HalftoneError } from "../../errors.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import { sameShape } from "../../tensor/shape.ts";
import type { LoadOptions, StoredWeight, WeightSet, WeightSource } from "../backend.ts";
import type { MemoryLedger } from "../memory_ledger.ts";

/** Weights by name, counted in the backend's ledger. */
export class ReferenceWeights implements WeightSet {
  readonly #ledger: MemoryLedger;
  readonly #weights = new Map<string, StoredWeight>();
  #bytes = 0;

  constructor(ledger: MemoryLedger) {
    this.#ledger = ledger;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Takes a weight after checking that it is what the plan expects. */
  add(plan: PlanWeight, stored: StoredWeight): void {
    checkStored(plan, stored);
    this.#weights.set(plan.name, stored);
    this.#bytes += plan.bytes;
    this.#ledger.take("weights", plan.bytes);
  }

  has(name: string): boolean {
    return this.#weights.has(name);
  }

  /** Throws missing_tensor for a name that was never loaded or is released. */
  get(plan: PlanWeight): StoredWeight {
    const stored = this.#weights.get(plan.name);
    if (stored) return stored;
    throw new HalftoneError("missing_tensor", "Cannot compile a plan without its weight", {
      tensor: plan.name,
    });
  }

  release(): Promise<void> {
    this.#weights.clear();
    this.#ledger.free("weights", this.#bytes);
    this.#bytes = 0;
    return Promise.resolve();
  }
}

/** Reads `weights` from `source` into a new set, one at a time; on failure nothing stays held. */
export async function loadReferenceWeights(
  weights: readonly PlanWeight[],
  source: WeightSource,
  ledger: MemoryLedger,
  options: LoadOptions,
): Promise<ReferenceWeights> {
  const set = new ReferenceWeights(ledger);
  try {
    for (const [index, weight] of weights.entries()) {
      if (options.signal?.aborted) throw aborted();
      if (!set.has(weight.name)) set.add(weight, await source.read(weight));
      options.onProgress?.(index + 1, weights.length);
    }
    return set;
  } catch (error) {
    await set.release();
    throw error;
  }
}

function checkStored(plan: PlanWeight, stored: StoredWeight): void {
  const { shape } = stored.tensor;
  if (!sameShape(shape, plan.shape)) {
    throw new HalftoneError("tensor_shape_mismatch", "Cannot load a weight", {
      tensor: plan.name,
      found: shape,
      expected: plan.shape,
    });
  }
  const found = stored.kind === "dense" ? stored.tensor.dtype : `${stored.tensor.layout.bits}-bit`;
  const { format } = plan;
  const expected = format.kind === "dense" ? format.dtype : `${format.layout.bits}-bit`;
  if (found === expected) return;
  throw new HalftoneError("plan_invalid", "Cannot load a weight in another format", {
    tensor: plan.name,
    found,
    expected,
  });
}

function aborted(): HalftoneError {
  return new HalftoneError("aborted", "Cannot load weights: aborted by the caller");
}
