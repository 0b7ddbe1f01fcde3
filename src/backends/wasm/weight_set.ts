/** Weights held by the wasm backend: resident in its memory, or at home outside and streamed in. */

import { HalftoneError } from "../../errors.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import type { LoadOptions, WeightSet, WeightSource } from "../backend.ts";
import type { Engine } from "./engine.ts";
import { ReadAhead } from "../read_ahead.ts";
import { readUnit, unitLayout } from "../weight_unit.ts";

/** Where one weight's unit lies. */
export type UnitHome =
  | { readonly kind: "resident"; readonly address: number }
  | { readonly kind: "outside"; readonly unit: number };

/** Bytes of all units: what a set of weights takes. */
export function unitBytes(weights: readonly PlanWeight[]): number {
  return weights.reduce((sum, weight) => sum + unitLayout(weight).bytes, 0);
}

/** The weights of a set by name. */
export class WasmWeightSet implements WeightSet {
  readonly bytes: number;
  readonly isResident: boolean;
  readonly #engine: Engine;
  readonly #homes = new Map<string, UnitHome>();
  readonly #onRelease: (set: WasmWeightSet) => void;
  #released: Promise<void> | undefined;

  private constructor(
    engine: Engine,
    bytes: number,
    isResident: boolean,
    onRelease: (set: WasmWeightSet) => void,
  ) {
    this.#engine = engine;
    this.bytes = bytes;
    this.isResident = isResident;
    this.#onRelease = onRelease;
  }

  /** Loads weights one by one; on failure nothing stays allocated. */
  static async load(
    engine: Engine,
    weights: readonly PlanWeight[],
    source: WeightSource,
    placement: { isResident: boolean; onRelease: (set: WasmWeightSet) => void },
    options: LoadOptions,
  ): Promise<WasmWeightSet> {
    const { isResident, onRelease } = placement;
    const set = new WasmWeightSet(engine, unitBytes(weights), isResident, onRelease);
    const ahead = new ReadAhead(source, weights);
    try {
      if (isResident) engine.memory.allocator.reserve(set.bytes);
      for (const [index, weight] of weights.entries()) {
        if (options.signal?.aborted) {
          throw new HalftoneError("aborted", "Cannot load weights: it was aborted");
        }
        await set.#loadOne(weight, ahead);
        options.onProgress?.(index + 1, weights.length);
      }
    } catch (error) {
      await set.#freeAll();
      throw error;
    } finally {
      await ahead.settle();
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

  /** Frees everything; the memory is back when this is done. */
  release(): Promise<void> {
    return this.#released ??= this.#freeAll().then(() => this.#onRelease(this));
  }

  async #loadOne(weight: PlanWeight, source: WeightSource): Promise<void> {
    if (this.#homes.has(weight.name)) return;
    const { bytes } = unitLayout(weight);
    if (!this.isResident) {
      const unit = new Uint8Array(bytes);
      await readUnit(weight, source, () => unit);
      const home = { kind: "outside", unit: await this.#engine.addUnit(unit) } as const;
      return void this.#homes.set(weight.name, home);
    }
    const { memory } = this.#engine;
    const address = memory.allocator.allocate(bytes, "weights");
    this.#homes.set(weight.name, { kind: "resident", address });
    await readUnit(weight, source, () => memory.bytes(address, bytes));
  }

  async #freeAll(): Promise<void> {
    const homes = [...this.#homes.values()];
    this.#homes.clear();
    const units = homes.flatMap((home) => home.kind === "outside" ? [home.unit] : []);
    for (const home of homes) {
      if (home.kind === "resident") this.#engine.memory.allocator.free(home.address);
    }
    if (units.length > 0) await this.#engine.freeUnits(units);
  }
}
