/** Chooses and makes a backend. */

import { HalftoneError } from "../errors.ts";
import type { Backend } from "./backend.ts";
import { checkMatmulPrecision, type MatmulPrecision } from "./cuda/matmul_precision.ts";
import type { CudaBackend } from "./cuda/mod.ts";
import { createReferenceBackend } from "./reference/mod.ts";

/** The backends by name; "auto" takes the fastest that starts here. */
export type BackendName = "auto" | "reference" | "wasm" | "cuda";

/** The backends there are. */
export const BACKEND_NAMES: readonly Exclude<BackendName, "auto">[] = ["reference", "wasm", "cuda"];

/** What a caller may ask of a backend. */
export interface BackendOptions {
  /** "auto" when absent. */
  readonly backend?: BackendName;
  /** Worker threads; the backend's own choice when absent. Only "wasm" has threads. */
  readonly threads?: number;
  /** The same bytes on every machine: relaxed SIMD is not used. */
  readonly strict?: boolean;
  /** Bytes of weights that may stay on the device; the rest streams in. */
  readonly residentWeightBytes?: number;
  /** How exactly large products, attention and convolutions are computed, "float32" by default. Only "cuda" has a choice. */
  readonly matmulPrecision?: MatmulPrecision;
  /** The library of NVIDIA's driver, where it is not found by itself. Only "cuda" has one. */
  readonly driverLibrary?: string;
  /** NVIDIA's cuBLASLt, where it is not found by itself; false to do without it. Only "cuda" has one. */
  readonly cublasLtLibrary?: string | false;
  /** NVIDIA's cuDNN, likewise. */
  readonly cudnnLibrary?: string | false;
  /** Told what is odd but no error; console.warn by default. */
  readonly onWarning?: (message: string) => void;
}

/** A backend and why it was chosen. */
export interface BackendChoice {
  readonly backend: Backend;
  /** One sentence, for people: "asked for" or what made "auto" choose. */
  readonly reason: string;
}

/** Makes a backend; throws `backend_unavailable` when the one asked for cannot start. */
export async function createBackend(options: BackendOptions = {}): Promise<Backend> {
  return (await chooseBackend(options)).backend;
}

/** Makes a backend and says why it is this one. */
export async function chooseBackend(options: BackendOptions = {}): Promise<BackendChoice> {
  checkMatmulPrecision(options.matmulPrecision);
  switch (options.backend ?? "auto") {
    case "reference":
      return { backend: createReferenceBackend(), reason: "reference: asked for" };
    case "wasm":
      return { backend: await startWasm(options), reason: "wasm: asked for" };
    case "cuda":
      return { backend: await startCuda(options), reason: "cuda: asked for" };
    case "auto":
      return await chooseFastest(options);
    default:
      throw new HalftoneError("invalid_argument", "Cannot make this backend", {
        field: "backend",
        found: options.backend,
        expected: "auto, reference, wasm or cuda",
      });
  }
}

async function chooseFastest(options: BackendOptions): Promise<BackendChoice> {
  const missing: string[] = [];
  const cuda = await started(() => startCuda(options), missing);
  if (cuda) return { backend: cuda, reason: `cuda: ${cuda.description}` };
  const wasm = await started(() => startWasm(options), missing);
  if (wasm) return { backend: wasm, reason: `wasm: the fastest that starts here. ${missing[0]}` };
  const reason = `reference: wasm does not start here (${missing[1]}), nor does cuda (${
    missing[0]
  })`;
  return { backend: createReferenceBackend(), reason };
}

/** A backend, or null with the reason why it cannot start; a wrong option is the caller's to mend. */
async function started<Made extends Backend>(
  start: () => Promise<Made>,
  missing: string[],
): Promise<Made | null> {
  try {
    return await start();
  } catch (error) {
    if (!(error instanceof HalftoneError) || error.code !== "backend_unavailable") throw error;
    missing.push(error.message);
    return null;
  }
}

async function startWasm(options: BackendOptions): Promise<Backend> {
  const { createWasmBackend } = await import("./wasm/mod.ts");
  const { threads, strict, residentWeightBytes } = options;
  return await createWasmBackend({ threads, strict, residentWeightBytes });
}

async function startCuda(options: BackendOptions): Promise<CudaBackend> {
  const { createCudaBackend } = await import("./cuda/mod.ts");
  const {
    residentWeightBytes,
    matmulPrecision,
    driverLibrary,
    cublasLtLibrary,
    cudnnLibrary,
    onWarning,
  } = options;
  return await createCudaBackend({
    residentWeightBytes,
    matmulPrecision,
    driverLibrary,
    cublasLtLibrary,
    cudnnLibrary,
    onWarning,
  });
}
