/** Weights held by the wasm backend: resident in its memory, or at home outside and streamed in. */

import { HalftoneError } from "../../errors.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import { ScratchBytes } from "../../tensor/scratch_bytes.ts";
import type { LoadOptions, WeightSet, WeightSource } from "../backend.ts";
import type { EngineMemory } from "./engine_memory.ts";
import { readUnit, type UnitLayout, unitLayout } from "../weight_unit.ts";

/** Where one weight's unit lies. */
export type UnitHome =
  | { readonly kind: "resident"; readonly address: number }
  | { readonly kind: "outside"; readonly unit: Uint8Array };

/** Bytes of all units: what a set of weights takes. */
export function unitBytes(weights: readonly PlanWeight[]): number {
  return weights.reduce((sum, weight) => sum + unitLayout(weight).bytes, 0);
}

/** The weights of a set by name. */
export class WasmWeightSet implements WeightSet {
  readonly bytes: number;
  readonly isResident: boolean;
  readonly #memory: EngineMemory;
  readonly #homes = new Map<string, UnitHome>();
  readonly #onRelease: (set: WasmWeightSet) => void;
  #released = false;

  private constructor(
    memory: EngineMemory,
    bytes: number,
    isResident: boolean,
    onRelease: (set: WasmWeightSet) => void,
  ) {
    this.#memory = memory;
    this.bytes = bytes;
    this.isResident = isResident;
    this.#onRelease = onRelease;
  }

  /** Loads weights one by one; on failure nothing stays allocated. */
  static async load(
    memory: EngineMemory,
    weights: readonly PlanWeight[],
    source: WeightSource,
    placement: { isResident: boolean; onRelease: (set: WasmWeightSet) => void },
    options: LoadOptions,
  ): Promise<WasmWeightSet> {
    const { isResident, onRelease } = placement;
    const set = new WasmWeightSet(memory, unitBytes(weights), isResident, onRelease);
    const scratch = new ScratchBytes();
    try {
      if (isResident) memory.allocator.reserve(set.bytes);
      for (const [index, weight] of weights.entries()) {
        if (options.signal?.aborted) {
          throw new HalftoneError("aborted", "Cannot load weights: it was aborted");
        }
        await set.#loadOne(weight, source, scratch);
        options.onProgress?.(index + 1, weights.length);
      }
    } catch (error) {
      set.#freeAll();
      throw error;
    }
    return set;
  }

  /** Where a weight lies; throws missing_tensor when the set lacks it. */
  home(name: string): UnitHome {
    const home = this.#homes.get(name);
    if (home && !this.#released) return home;
    throw new HalftoneError("missing_tensor", "Cannot compile: the weights lack a tensor", {
      tensor: name,
    });
  }

  /** Frees everything. */
  release(): Promise<void> {
    if (!this.#released) {
      this.#freeAll();
      this.#onRelease(this);
    }
    return Promise.resolve();
  }

  async #loadOne(
    weight: PlanWeight,
    source: WeightSource,
    scratch: ScratchBytes,
  ): Promise<void> {
    if (this.#homes.has(weight.name)) return;
    scratch.reset();
    const layout = unitLayout(weight);
    const home = this.#allocate(layout);
    this.#homes.set(weight.name, home);
    const unit = () =>
      home.kind === "outside" ? home.unit : this.#memory.bytes(home.address, layout.bytes);
    await readUnit(weight, source, unit, scratch);
  }

  #allocate(layout: UnitLayout): UnitHome {
    if (this.isResident) {
      return {
        kind: "resident",
        address: this.#memory.allocator.allocate(layout.bytes, "weights"),
      };
    }
    const isShared = this.#memory.isShared;
    const buffer = isShared ? new SharedArrayBuffer(layout.bytes) : new ArrayBuffer(layout.bytes);
    return { kind: "outside", unit: new Uint8Array(buffer) };
  }

  #freeAll(): void {
    for (const home of this.#homes.values()) {
      if (home.kind === "resident") this.#memory.allocator.free(home.address);
    }
    this.#homes.clear();
    this.#released = true;
  }
}
