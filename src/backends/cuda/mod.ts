/**
 * The CUDA backend: our kernels on an NVIDIA GPU, reached through the driver by FFI. No toolkit, compiler or
 * addon is needed; docs/cuda.md says what has been tried on a device and what has not.
 *
 * @module
 */

import { HalftoneError } from "../../errors.ts";
import type { OpName } from "../../ops/op_table.ts";
import type { Plan, PlanWeight } from "../../plan/plan.ts";
import type {
  Backend,
  BackendLimits,
  LoadOptions,
  MemoryUse,
  Program,
  WeightSet,
  WeightSource,
} from "../backend.ts";
import { planSlots } from "../slot_plan.ts";
import { CudaDevice } from "./device.ts";
import { Driver, versionText } from "./driver.ts";
import { Kernels } from "./kernels.ts";
import { CudaProgram, type ProgramHost, programScratch } from "./program.ts";
import { selfTest } from "./self_test.ts";
import { CudaWeightSet, unitBytes } from "./weight_set.ts";

/** Left to the driver, the context and the kernels themselves. */
const RESERVED_BYTES = 512 * 1024 ** 2;
/** Room for intermediates, of a quarter of the device at most: FLUX.1's decoder at 1024x1024 takes 2.0 GiB. */
const ARENA_BYTES = 3 * 1024 ** 3;

/** Options of the cuda backend. */
export interface CudaBackendOptions {
  /** Number of the device, 0 by default. */
  readonly device?: number;
  /** Most bytes of weights kept on the device; sets beyond it stream in. By default what leaves room to work. */
  readonly residentWeightBytes?: number;
  /** The driver's library; NVIDIA's own by default. */
  readonly driverLibrary?: string;
}

/** Starts the cuda backend. Throws `backend_unavailable` where driver, device or a fitting build is missing. */
export async function createCudaBackend(options: CudaBackendOptions = {}): Promise<CudaBackend> {
  const { residentWeightBytes } = options;
  if (
    residentWeightBytes !== undefined &&
    !(Number.isSafeInteger(residentWeightBytes) && residentWeightBytes >= 0)
  ) {
    throw new HalftoneError("invalid_argument", "Cannot start the cuda backend", {
      field: "residentWeightBytes",
      found: residentWeightBytes,
      expected: "a whole number of bytes from 0",
    });
  }
  const device = CudaDevice.open(Driver.open(options.driverLibrary), options.device ?? 0);
  let backend: CudaBackend | undefined;
  try {
    backend = new CudaBackend(device, await Kernels.load(device), residentWeightBytes);
    await selfTest(backend);
    return backend;
  } catch (error) {
    if (backend) await backend.close();
    else device.close();
    throw error;
  }
}

/** Weights and plans on a device. */
export class CudaBackend implements Backend, ProgramHost {
  readonly name = "cuda";
  readonly limits: BackendLimits;
  readonly device: CudaDevice;
  readonly kernels: Kernels;
  readonly #sets = new Set<CudaWeightSet>();
  readonly #programs = new Set<CudaProgram>();
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** Use `createCudaBackend`. */
  constructor(device: CudaDevice, kernels: Kernels, residentWeightBytes?: number) {
    this.device = device;
    this.kernels = kernels;
    const usable = Math.max(0, device.memoryBytes().free - RESERVED_BYTES);
    const room = Math.min(ARENA_BYTES, Math.floor(usable / 4));
    this.limits = {
      residentWeightBytes: residentWeightBytes ?? usable - room,
      arenaBytes: residentWeightBytes === undefined
        ? room
        : Math.max(room, usable - residentWeightBytes),
    };
  }

  /** The device, its compute capability and the driver's CUDA version, for people. */
  get description(): string {
    const { name, capability, driver } = this.device;
    return `${name} (sm_${capability}, driver for CUDA ${versionText(driver.version)})`;
  }

  /** Most bytes of weights that stay on the device. */
  get residentWeightBytes(): number {
    return this.limits.residentWeightBytes;
  }

  supports(_op: OpName): boolean {
    return true;
  }

  scratchBytes(plan: Plan, streamed?: boolean): number {
    const bytes = unitBytes(plan.weights);
    const streams = streamed ?? bytes > this.residentWeightBytes;
    const slots = streams ? planSlots(plan, this.residentWeightBytes) : undefined;
    return bytes - plan.weightBytes + programScratch(plan, slots);
  }

  async loadWeights(
    weights: readonly PlanWeight[],
    source: WeightSource,
    options: LoadOptions = {},
  ): Promise<WeightSet> {
    this.#checkOpen();
    this.device.use();
    const fits = this.device.ledger.use().weights + unitBytes(weights) <= this.residentWeightBytes;
    const isResident = options.streamed === undefined ? fits : !options.streamed;
    const onRelease = (set: CudaWeightSet) => void this.#sets.delete(set);
    const set = await CudaWeightSet.load(
      this.device,
      weights,
      source,
      { isResident, onRelease },
      options,
    );
    this.#sets.add(set);
    return set;
  }

  // deno-lint-ignore require-await -- so that errors reject instead of being thrown
  async compile(plan: Plan, weights: WeightSet): Promise<Program> {
    this.#checkOpen();
    if (!(weights instanceof CudaWeightSet) || !this.#sets.has(weights)) {
      throw new HalftoneError("invalid_argument", "Cannot compile: weights of another backend");
    }
    this.device.use();
    const program = new CudaProgram(plan, weights, this);
    this.#programs.add(program);
    return program;
  }

  memory(): MemoryUse {
    return this.device.ledger.use();
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  inTurn(action: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(action);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  isClosing(): boolean {
    return this.#closing !== undefined;
  }

  forget(program: CudaProgram): void {
    this.#programs.delete(program);
  }

  async #close(): Promise<void> {
    await this.#turn;
    this.device.use();
    for (const program of [...this.#programs]) program.release();
    for (const set of [...this.#sets]) await set.release();
    this.kernels.close();
    this.device.close();
  }

  #checkOpen(): void {
    if (this.isClosing()) throw new HalftoneError("closed", "Cannot use the backend: it is closed");
  }
}
