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
  NativeLibrary,
  Program,
  WeightSet,
  WeightSource,
} from "../backend.ts";
import { planSlots } from "../slot_plan.ts";
import type { CublasLt } from "./cublas_lt.ts";
import type { Cudnn } from "./cudnn.ts";
import type { Launch } from "./cuda_step.ts";
import { CudaDevice } from "./device.ts";
import { Driver, versionText } from "./driver.ts";
import { Kernels } from "./kernels.ts";
import {
  type Libraries,
  type LibraryName,
  libraryOf,
  type LibraryOptions,
  openLibraries,
  warnOfCompiler,
  warnOfMissing,
} from "./libraries.ts";
import { checkMatmulPrecision, type MatmulPrecision } from "./matmul_precision.ts";
import { CudaProgram, type ProgramHost, programScratch } from "./program.ts";
import { selfTest } from "./self_test.ts";
import { CudaWeightSet, unitBytes } from "./weight_set.ts";

/** Left to the driver, the context and the kernels themselves. */
const RESERVED_BYTES = 512 * 1024 ** 2;
/** Room for intermediates, of a quarter of the device at most: FLUX.1's decoder at 1024x1024 takes 2.0 GiB. */
const ARENA_BYTES = 3 * 1024 ** 3;

/** Options of the cuda backend. */
export interface CudaBackendOptions extends LibraryOptions {
  /** Number of the device, 0 by default. */
  readonly device?: number;
  /** Most bytes of weights kept on the device; sets beyond it stream in. By default what leaves room to work. */
  readonly residentWeightBytes?: number;
  /** How exactly products of more than 64 rows, attention and convolutions are computed; "float32" by default. */
  readonly matmulPrecision?: MatmulPrecision;
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
  const { measureProductsFrom = 0 } = options;
  if (!(measureProductsFrom >= 0)) {
    throw new HalftoneError("invalid_argument", "Cannot start the cuda backend", {
      field: "measureProductsFrom",
      found: measureProductsFrom,
      expected: "a number from 0, or Infinity",
    });
  }
  checkMatmulPrecision(options.matmulPrecision);
  const device = CudaDevice.open(Driver.open(options.driverLibrary), options.device ?? 0);
  let backend: CudaBackend | undefined;
  try {
    const kernels = await Kernels.load(device);
    device.use();
    const libraries = await openLibraries(device, options);
    backend = new CudaBackend(device, kernels, { ...options, libraries });
    await testItself(backend, options);
    return backend;
  } catch (error) {
    if (backend) await backend.close();
    else device.close();
    throw error;
  }
}

/** Known numbers; a library that fails or gets them wrong is done without. */
async function testItself(backend: CudaBackend, options: CudaBackendOptions): Promise<void> {
  for (;;) {
    try {
      await selfTest(backend);
      return warnOfCompiler(backend.products.dnn, options);
    } catch (error) {
      const library = libraryOf(error);
      if (library === null || !backend.dropLibrary(library)) throw error;
      warnOfMissing(library, (error as HalftoneError).message, options);
    }
  }
}

/** Weights and plans on a device. */
export class CudaBackend implements Backend, ProgramHost {
  readonly name = "cuda";
  readonly limits: BackendLimits;
  readonly device: CudaDevice;
  products: {
    readonly precision: MatmulPrecision;
    readonly library: CublasLt | null;
    readonly dnn: Cudnn | null;
  };
  readonly #kernels: Kernels;
  readonly #sets = new Set<CudaWeightSet>();
  readonly #programs = new Set<CudaProgram>();
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** Use `createCudaBackend`. */
  constructor(
    device: CudaDevice,
    kernels: Kernels,
    { residentWeightBytes, matmulPrecision = "float32", libraries }: CudaBackendOptions & {
      readonly libraries: Libraries;
    },
  ) {
    this.device = device;
    this.#kernels = kernels;
    const { cublasLt, cudnn } = libraries;
    this.products = { precision: matmulPrecision, library: cublasLt, dnn: cudnn };
    const usable = Math.max(0, device.memoryBytes().free - RESERVED_BYTES);
    const room = Math.min(ARENA_BYTES, Math.floor(usable / 4));
    this.limits = {
      residentWeightBytes: residentWeightBytes ?? usable - room,
      arenaBytes: residentWeightBytes === undefined
        ? room
        : Math.max(room, usable - residentWeightBytes),
    };
  }

  /** The device, its compute capability, the versions of driver and libraries, for people. */
  get description(): string {
    const { name, capability, driver } = this.device;
    const { library, dnn } = this.products;
    const parts = [
      `sm_${capability}`,
      `driver for CUDA ${versionText(driver.version)}`,
      library?.description ?? "no cuBLASLt",
      dnn?.description ?? "no cuDNN",
    ];
    return `${name} (${parts.join(", ")})`;
  }

  /** cuBLASLt and cuDNN, where they are used. */
  get libraries(): readonly NativeLibrary[] {
    const { library, dnn } = this.products;
    return [library, dnn].flatMap((used) =>
      used ? [{ name: used.description, file: used.calls.library }] : []
    );
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
    return bytes - plan.weightBytes + programScratch(plan, slots, this.products);
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
      { isResident, onRelease, launch: (launch) => this.#kernels.launch(launch) },
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
    const { ledger } = this.device;
    return { ...ledger.use(), devicePeak: ledger.devicePeak };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  inTurn(action: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(action);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  enqueue(launch: Launch): void {
    if (launch.kind === "kernel") return this.#kernels.launch(launch);
    const { library, dnn } = this.products;
    const { compute } = this.device;
    if (launch.kind === "matmul") {
      return library!.enqueue(launch.prepared, launch.addresses, compute);
    }
    dnn!.enqueue(launch.prepared, launch.addresses, compute);
  }

  /** Goes on without a library, if there is one; no program may use it any more. */
  dropLibrary(name: LibraryName): boolean {
    const { library, dnn } = this.products;
    const dropped = name === "cudnn" ? dnn : library;
    this.device.finish();
    dropped?.close();
    this.products = { ...this.products, [name === "cudnn" ? "dnn" : "library"]: null };
    return dropped !== null;
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
    this.dropLibrary("cudnn");
    this.dropLibrary("cublasLt");
    this.#kernels.close();
    this.device.close();
  }

  #checkOpen(): void {
    if (this.isClosing()) throw new HalftoneError("closed", "Cannot use the backend: it is closed");
  }
}
