/** Weights of the cuda backend: resident on the device, or at home in pinned memory and streamed in. */

import { HalftoneError } from "../../errors.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import { bytesAt } from "../../runtime/foreign.ts";
import { elementCount } from "../../tensor/shape.ts";
import type { LoadOptions, WeightSet, WeightSource } from "../backend.ts";
import { ReadAhead } from "../read_ahead.ts";
import { readUnit, type UnitLayout, unitLayout } from "../weight_unit.ts";
import { typesThatHold } from "./exact_types.ts";
import type { NarrowType } from "./plain_rows.ts";
import { CODE_UNIT } from "./code_places.ts";
import { signsCodes } from "./coded_weight.ts";
import type { KernelLaunch } from "./cuda_step.ts";
import type { CudaDevice } from "./device.ts";
import { BLOCK_THREADS } from "./kernel_names.ts";
import { address, integers, packParameters } from "./parameters.ts";

/** Bytes of all units: what a set of weights takes. */
export function unitBytes(weights: readonly PlanWeight[]): number {
  return uniqueWeights(weights).reduce((sum, weight) => sum + unitLayout(weight).bytes, 0);
}

function largestUnit(weights: readonly PlanWeight[]): number {
  return weights.reduce((largest, weight) => Math.max(largest, unitLayout(weight).bytes), 0);
}

/** Each name once, in order: plans may name a weight twice. */
function uniqueWeights(weights: readonly PlanWeight[]): PlanWeight[] {
  return [...new Map(weights.map((weight) => [weight.name, weight])).values()];
}

/** Where a set lies, and what puts a kernel into the stream that loads it. */
interface WeightPlacement {
  readonly isResident: boolean;
  readonly onRelease: (set: CudaWeightSet) => void;
  readonly launch: (launch: KernelLaunch) => void;
}

/** Codes around 128 become signed where they lie, so that no run has to. */
function signLaunch(codes: number, count: number): KernelLaunch {
  const sixteens = count / CODE_UNIT;
  const parameters = packParameters([address(codes), ...integers(sixteens, 0)]);
  return {
    kind: "kernel",
    kernel: "sign_codes",
    grid: [Math.ceil(sixteens / BLOCK_THREADS), 1, 1],
    parameters,
  };
}

/** The weights of a set by name, in one region. */
export class CudaWeightSet implements WeightSet {
  readonly bytes: number;
  readonly isResident: boolean;
  readonly #device: CudaDevice;
  readonly #region: number;
  readonly #offsets = new Map<string, number>();
  readonly #exactTypes = new Map<string, readonly NarrowType[]>();
  readonly #onRelease: (set: CudaWeightSet) => void;
  #isReleased = false;

  private constructor(
    device: CudaDevice,
    bytes: number,
    isResident: boolean,
    onRelease: (set: CudaWeightSet) => void,
  ) {
    this.#device = device;
    this.bytes = bytes;
    this.isResident = isResident;
    this.#onRelease = onRelease;
    this.#region = isResident
      ? device.allocate(bytes, "weights", "weights")
      : device.allocatePinned(bytes, "weights", "weights that stream in");
  }

  /** Loads weights one by one; on failure nothing stays allocated. */
  static async load(
    device: CudaDevice,
    weights: readonly PlanWeight[],
    source: WeightSource,
    placement: WeightPlacement,
    options: LoadOptions,
  ): Promise<CudaWeightSet> {
    const { isResident, onRelease, launch } = placement;
    const set = new CudaWeightSet(device, unitBytes(weights), isResident, onRelease);
    // The same pages for one after another: fresh ones cost more than reading into them.
    const memory = isResident ? new Uint8Array(largestUnit(weights)) : null;
    const ahead = new ReadAhead(source, weights);
    try {
      for (const [index, weight] of weights.entries()) {
        if (options.signal?.aborted) {
          throw new HalftoneError("aborted", "Cannot load weights: it was aborted");
        }
        await set.#loadOne(weight, ahead, memory, launch);
        options.onProgress?.(index + 1, weights.length);
      }
      device.synchronize("load weights");
    } catch (error) {
      device.free(set.#region);
      throw error;
    } finally {
      await ahead.settle();
    }
    return set;
  }

  /** Address of a weight's unit, on the device or in pinned memory; throws `missing_tensor`. */
  address(name: string): number {
    const offset = this.#offsets.get(name);
    if (offset !== undefined && !this.#isReleased) return this.#region + offset;
    throw new HalftoneError("missing_tensor", "Cannot compile: the weights lack a tensor", {
      tensor: name,
    });
  }

  /** Whether a vector's numbers are all of a type of 16 bits. */
  isExactIn(name: string, type: NarrowType): boolean {
    return this.#exactTypes.get(name)?.includes(type) ?? false;
  }

  release(): Promise<void> {
    if (!this.#isReleased) {
      this.#isReleased = true;
      this.#device.free(this.#region);
      this.#onRelease(this);
    }
    return Promise.resolve();
  }

  #end = 0;

  async #loadOne(
    weight: PlanWeight,
    source: WeightSource,
    memory: Uint8Array | null,
    launch: WeightPlacement["launch"],
  ): Promise<void> {
    if (this.#offsets.has(weight.name)) return;
    const layout: UnitLayout = unitLayout(weight);
    const place = this.#region + this.#end;
    const unit = memory && memory.subarray(0, layout.bytes); // not cleared
    await readUnit(weight, source, () => {
      this.#device.checkOpen(); // else there is no pinned memory any more
      return unit ?? bytesAt(place, layout.bytes);
    });
    this.#device.use();
    if (weight.shape.length === 1) {
      const { buffer, byteOffset } = unit ?? bytesAt(place, layout.bytes);
      const values = new Float32Array(buffer, byteOffset, elementCount(weight.shape));
      this.#exactTypes.set(weight.name, typesThatHold(values));
    }
    if (unit) {
      this.#device.upload(place, unit);
      if (signsCodes(weight)) launch(signLaunch(place + layout.data, elementCount(weight.shape)));
    }
    this.#offsets.set(weight.name, this.#end);
    this.#end += layout.bytes;
  }
}
