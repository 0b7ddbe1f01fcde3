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
import { CublasLt } from "./cublas_lt.ts";
import { cublasLtLibraries } from "./library_paths.ts";
import type { Launch } from "./cuda_step.ts";
import { CudaDevice } from "./device.ts";
import { Driver, versionText } from "./driver.ts";
import { Kernels } from "./kernels.ts";
import { checkMatmulPrecision, type MatmulPrecision } from "./matmul_precision.ts";
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
  /** How exactly products of more than 64 rows are computed; "float32" by default. */
  readonly matmulPrecision?: MatmulPrecision;
  /** The driver's library; NVIDIA's own by default. */
  readonly driverLibrary?: string;
  /** cuBLASLt's library, or false to do without; by default the first of `cublasLtLibraries` that starts. */
  readonly cublasLtLibrary?: string | false;
  /** Told when there is no cuBLASLt, so that products are slow; console.warn by default. */
  readonly onWarning?: (message: string) => void;
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
  checkMatmulPrecision(options.matmulPrecision);
  const device = CudaDevice.open(Driver.open(options.driverLibrary), options.device ?? 0);
  let backend: CudaBackend | undefined;
  try {
    const kernels = await Kernels.load(device);
    const library = await openLibrary(device, options);
    backend = new CudaBackend(device, kernels, { ...options, library });
    await testItself(backend, options);
    return backend;
  } catch (error) {
    if (backend) await backend.close();
    else device.close();
    throw error;
  }
}

/** Known numbers with cuBLASLt, and without it where it fails or they come out wrong. */
async function testItself(backend: CudaBackend, options: CudaBackendOptions): Promise<void> {
  try {
    await selfTest(backend);
  } catch (error) {
    if (!isLibrarys(error) || !backend.dropLibrary()) throw error;
    await selfTest(backend);
    warnOfMissing(error.message, options);
  }
}

/** Whether the library may be to blame: wrong numbers, or a call into it that failed. */
function isLibrarys(error: unknown): error is HalftoneError {
  if (!(error instanceof HalftoneError)) return false;
  const { code, detail } = error;
  return code === "backend_unavailable" || detail.field?.startsWith("cublasLt") === true;
}

/** cuBLASLt, or null with a warning that says why. */
async function openLibrary(
  device: CudaDevice,
  options: CudaBackendOptions,
): Promise<CublasLt | null> {
  const { cublasLtLibrary } = options;
  if (cublasLtLibrary === false) return null;
  const libraries = cublasLtLibrary === undefined
    ? await cublasLtLibraries(device.driver.version)
    : [cublasLtLibrary];
  device.use();
  const opened = CublasLt.open(libraries, device.capability);
  if (typeof opened !== "string") return opened;
  warnOfMissing(opened, options);
  return null;
}

function warnOfMissing(
  reason: string,
  { onWarning = (message) => console.warn(message) }: CudaBackendOptions,
): void {
  onWarning(
    `Without cuBLASLt matrix products run on slower kernels (${reason}). ` +
      "It is in CUDA's toolkit and in the Python package nvidia-cublas",
  );
}

/** Weights and plans on a device. */
export class CudaBackend implements Backend, ProgramHost {
  readonly name = "cuda";
  readonly limits: BackendLimits;
  readonly device: CudaDevice;
  products: { readonly precision: MatmulPrecision; readonly library: CublasLt | null };
  readonly #kernels: Kernels;
  readonly #sets = new Set<CudaWeightSet>();
  readonly #programs = new Set<CudaProgram>();
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** Use `createCudaBackend`. */
  constructor(
    device: CudaDevice,
    kernels: Kernels,
    { residentWeightBytes, matmulPrecision = "float32", library }: CudaBackendOptions & {
      readonly library: CublasLt | null;
    },
  ) {
    this.device = device;
    this.#kernels = kernels;
    this.products = { precision: matmulPrecision, library };
    const usable = Math.max(0, device.memoryBytes().free - RESERVED_BYTES);
    const room = Math.min(ARENA_BYTES, Math.floor(usable / 4));
    this.limits = {
      residentWeightBytes: residentWeightBytes ?? usable - room,
      arenaBytes: residentWeightBytes === undefined
        ? room
        : Math.max(room, usable - residentWeightBytes),
    };
  }

  /** The device, its compute capability, the driver's CUDA version and cuBLASLt's, for people. */
  get description(): string {
    const { name, capability, driver } = this.device;
    const library = this.products.library?.description ?? "no cuBLASLt";
    return `${name} (sm_${capability}, driver for CUDA ${versionText(driver.version)}, ${library})`;
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
    this.products.library!.enqueue(launch.prepared, launch.addresses, this.device.compute);
  }

  /** Goes on without the library, if there is one; no program may use it any more. */
  dropLibrary(): boolean {
    const { precision, library } = this.products;
    this.device.finish();
    library?.close();
    this.products = { precision, library: null };
    return library !== null;
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
    this.dropLibrary();
    this.#kernels.close();
    this.device.close();
  }

  #checkOpen(): void {
    if (this.isClosing()) throw new HalftoneError("closed", "Cannot use the backend: it is closed");
  }
}
