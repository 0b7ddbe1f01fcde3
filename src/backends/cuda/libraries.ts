/** NVIDIA's libraries beside the driver: found, started, and gone without where they fail, with a warning. */

import { HalftoneError } from "../../errors.ts";
import { preloadLibrary } from "../../runtime/foreign.ts";
import { ATTENTION_VERSION, Cudnn } from "./cudnn.ts";
import { MEASURED_MULTIPLICATIONS } from "./algorithm_choice.ts";
import { CublasLt, type ProductDevice } from "./cublas_lt.ts";
import type { CudaDevice } from "./device.ts";
import { compilerParts, cublasLtLibraries, cudnnLibraries } from "./library_paths.ts";
import { libraryVersionText } from "./library_calls.ts";
import { type MatmulPrecision, operandType } from "./matmul_precision.ts";
import { millisecondsOf } from "./stopwatch.ts";
import { memoryAfter } from "./trial.ts";

/** A library by its name in code. */
export type LibraryName = "cublasLt" | "cudnn";

/** Which libraries to use, and whom to tell. */
export interface LibraryOptions {
  readonly matmulPrecision?: MatmulPrecision;
  /** cuBLASLt's library, or false to do without; by default the first of `cublasLtLibraries` that starts. */
  readonly cublasLtLibrary?: string | false;
  /**
   * Multiplications from which the algorithms of a product, an attention or a convolution are timed when a plan is
   * compiled, once in a process; 2 ** 32 by default, Infinity for never: then the library's first choice is taken.
   */
  readonly measureProductsFrom?: number;
  /** cuDNN's library, or false to do without; by default the first of `cudnnLibraries` that starts. */
  readonly cudnnLibrary?: string | false;
  /** Told when a library is missing, so that its work is slow; console.warn by default. */
  readonly onWarning?: (message: string) => void;
}

/** What was started; null for what is missing or not wanted. */
export interface Libraries {
  readonly cublasLt: CublasLt | null;
  readonly cudnn: Cudnn | null;
}

const WORDS = {
  cublasLt: {
    name: "cuBLASLt",
    slow: "matrix products run",
    source: "It is in CUDA's toolkit and in the Python package nvidia-cublas",
    /** The ops of the self test, and the start of its functions' names. */
    ops: ["linear", "matmul"],
  },
  cudnn: {
    name: "cuDNN",
    slow: "attention and convolutions run",
    source: "It is in NVIDIA's packages and in the Python package nvidia-cudnn-cu13",
    ops: ["attention", "conv2d"],
  },
} as const;

/** Starts both on a device whose context is current; what cannot be had is null, with a warning that says why. */
export async function openLibraries(
  device: CudaDevice,
  options: LibraryOptions,
): Promise<Libraries> {
  const { driver, name, capability, compute } = device;
  const products: ProductDevice = {
    name,
    capability,
    compute,
    measureFrom: options.measureProductsFrom ?? MEASURED_MULTIPLICATIONS,
    milliseconds: (enqueue) => millisecondsOf(device, enqueue),
    after: (bytes, enqueue) => memoryAfter(device, bytes, enqueue),
    warn: options.onWarning ?? ((message) => console.warn(message)),
  };
  const cublasLt = await openLibrary("cublasLt", options.cublasLtLibrary, options, {
    find: () => cublasLtLibraries(driver.version),
    open: (libraries) => CublasLt.open(libraries, products),
  });
  try {
    const cudnn = await openLibrary("cudnn", options.cudnnLibrary, options, {
      find: cudnnLibraries,
      open: (libraries) => Cudnn.open(libraries, products),
    });
    if (cudnn) (await compilerParts(cudnn.calls.library)).forEach(preloadLibrary);
    warnOfAttention(cudnn, options);
    return { cublasLt, cudnn };
  } catch (error) {
    cublasLt?.close();
    throw error;
  }
}

async function openLibrary<Library>(
  name: LibraryName,
  given: string | false | undefined,
  options: LibraryOptions,
  { find, open }: {
    readonly find: () => Promise<string[]>;
    readonly open: (libraries: readonly string[]) => Library | string;
  },
): Promise<Library | null> {
  if (given === false) return null;
  const opened = open(given === undefined ? await find() : [given]);
  if (typeof opened !== "string") return opened;
  warnOfMissing(name, opened, options);
  return null;
}

/** Says that a library is missing, and what that means. */
export function warnOfMissing(
  library: LibraryName,
  reason: string,
  { onWarning = (message) => console.warn(message) }: LibraryOptions,
): void {
  const { name, slow, source } = WORDS[library];
  onWarning(`Without ${name} ${slow} on slower kernels (${reason}). ${source}`);
}

/** An older cuDNN still makes convolutions. */
function warnOfAttention(cudnn: Cudnn | null, options: LibraryOptions): void {
  const { matmulPrecision = "float32", onWarning = (message) => console.warn(message) } = options;
  if (!cudnn || cudnn.hasAttention || operandType(matmulPrecision) === "float32") return;
  onWarning(
    `${cudnn.description} has no attention that is used here, so it runs on a slower kernel; ` +
      `${libraryVersionText(ATTENTION_VERSION)} or newer has`,
  );
}

/** What compiles where it runs may not compile here; without its compiler there is no engine. */
export function warnOfCompiler(cudnn: Cudnn | null, options: LibraryOptions): void {
  if (!cudnn?.attentionFault) return;
  const { onWarning = (message) => console.warn(message) } = options;
  onWarning(
    `cuDNN makes no attention here, so it runs on a slower kernel (${cudnn.attentionFault}). ` +
      "It compiles it with NVRTC, which is in CUDA's toolkit and in the Python package nvidia-cuda-nvrtc",
  );
}

/** The library that an error is about: a call into it that failed, or wrong numbers of its work; else null. */
export function libraryOf(error: unknown): LibraryName | null {
  if (!(error instanceof HalftoneError)) return null;
  const field = error.detail.field ?? "";
  const names = Object.keys(WORDS) as LibraryName[];
  return names.find((name) =>
    field.startsWith(name) || (WORDS[name].ops as readonly string[]).includes(field)
  ) ?? null;
}
