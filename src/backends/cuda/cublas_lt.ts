/**
 * cuBLASLt, NVIDIA's library of matrix products: optional, found where it is installed, asked once per kind of
 * product which algorithm to use.
 */

import { HalftoneError } from "../../errors.ts";
import { addressOf } from "../../runtime/foreign.ts";
import {
  choiceKey,
  fastestOf,
  millisecondsOfRuns,
  RememberedChoices,
  type TimedDevice,
} from "./algorithm_choice.ts";
import { CublasLtCalls } from "./cublas_lt_calls.ts";
import { type Algorithm, MatmulDescriptors } from "./cublas_lt_descriptors.ts";
import { CUBLAS_STATUS } from "./cublas_lt_symbols.ts";
import type { KnownProduct } from "./known_products.ts";
import { openFirst } from "./library_calls.ts";
import type {
  MatmulAddresses,
  MatmulLibrary,
  MatmulProblem,
  PreparedMatmul,
} from "./matmul_problem.ts";
import { isCoded, ProductTrust } from "./product_trust.ts";

/** The first version that is asked: what comes with CUDA 12.0. */
const LEAST_VERSION = 120001;
/** Compute capability from which tensor cores take float8. */
const FLOAT8_CAPABILITY = 89;
/** The first version that knows one scale for each row of both operands, which it refuses before Hopper. */
const ROW_SCALES_VERSION = 120900;

const CHOICES = new RememberedChoices<Algorithm>();

/** The device that products run on. */
export interface ProductDevice extends TimedDevice {
  /** The stream of products. */
  readonly compute: number;
  /** Device memory that begins as `bytes`, after what `enqueue` puts into the stream for its address. */
  after(bytes: Uint8Array, enqueue: (address: number) => void): Uint8Array;
  /** Told of products that the library should do and does not. */
  warn(message: string): void;
}

const MULTIPLY = "cublasLtMatmul";

interface Product {
  readonly problem: MatmulProblem;
  readonly descriptors: MatmulDescriptors;
}

interface CublasLtMatmul extends PreparedMatmul, Product {
  readonly problem: MatmulProblem;
  readonly algorithm: Algorithm;
}

/** A started cuBLASLt on the current context's device. */
export class CublasLt implements MatmulLibrary {
  readonly calls: CublasLtCalls;
  readonly #handle: number;
  readonly #prepared = new Map<string, CublasLtMatmul | null>();
  readonly #device: ProductDevice;
  readonly #trust: ProductTrust;
  readonly #factors = {
    float32: new Float32Array(new ArrayBuffer(8)),
    int32: new Int32Array(new ArrayBuffer(8)),
  };

  readonly #factor = new Float32Array(new ArrayBuffer(4));

  /** Throws `backend_unavailable` for an old version, `backend_failed` when it does not start. */
  constructor(calls: CublasLtCalls, device: ProductDevice) {
    this.calls = calls;
    this.#device = device;
    this.#trust = new ProductTrust(this.description, (message) => device.warn(message));
    for (const factors of Object.values(this.#factors)) factors[1] = 1;
    if (calls.version < LEAST_VERSION) {
      throw new HalftoneError("backend_unavailable", "Cannot use this cuBLASLt: it is too old", {
        file: calls.library,
        found: calls.versionText,
        expected: "12.0.1 or newer",
      });
    }
    this.#handle = calls.get("cublasLtCreate", "start cuBLASLt");
  }

  /** The first library that opens and starts; a string says why none does. */
  static open(libraries: readonly string[], device: ProductDevice): CublasLt | string {
    return openFirst(libraries, (library) => new CublasLt(new CublasLtCalls(library), device));
  }

  /** Such as "cuBLASLt 13.1.1". */
  get description(): string {
    return `cuBLASLt ${this.calls.versionText}`;
  }

  get multipliesFloat8(): boolean {
    return this.#device.capability >= FLOAT8_CAPABILITY;
  }

  /** Asks the library once for each kind of product; null where it has no algorithm. */
  prepare(problem: MatmulProblem, addresses: MatmulAddresses): PreparedMatmul | null {
    const key = JSON.stringify(problem);
    const known = this.#prepared.get(key);
    if (known !== undefined) return known;
    const found = this.#prepare(problem, addresses);
    this.#prepared.set(key, found);
    return found;
  }

  /** Whether version and device have heard of it. */
  #knows({ operands, scaling }: MatmulProblem): boolean {
    if (operands === "float8_e4m3fn" && !this.multipliesFloat8) return false;
    return scaling !== "rows" || this.calls.version >= ROW_SCALES_VERSION;
  }

  #prepare(problem: MatmulProblem, addresses: MatmulAddresses): CublasLtMatmul | null {
    if (!this.#knows(problem)) return null;
    if (!this.#trust.allows(problem, (product) => this.#tried(product))) return null;
    const descriptors = new MatmulDescriptors(this.calls, problem);
    try {
      descriptors.setVectors(problem, addresses);
      const algorithm = this.#algorithm({ problem, descriptors }, addresses);
      if (algorithm) return { problem, descriptors, algorithm, isWarm: false };
    } catch (error) {
      descriptors.free();
      throw error;
    }
    descriptors.free();
    // What else scales is written for libraries that cannot; sums of codes have only slower kernels.
    if (isCoded(problem) && problem.scaling === "none") {
      this.#trust.refused(problem, `no algorithm to ${doing(problem)}`);
    }
    return null;
  }

  /** A known product's memory after it ran; null where the library has no algorithm for it. */
  #tried({ problem, memory, addresses }: KnownProduct): Uint8Array | null {
    const descriptors = new MatmulDescriptors(this.calls, problem);
    try {
      descriptors.setVectors(problem, addresses(0));
      const [algorithm] = this.#candidates(descriptors, problem);
      if (!algorithm) return null;
      return this.#device.after(memory, (start) => {
        const product = { problem, descriptors, algorithm };
        const status = this.#multiply(product, addresses(start), this.#device.compute);
        if (status === CUBLAS_STATUS.success) return;
        throw this.calls.errorOf(status, MULTIPLY, doing(problem));
      });
    } finally {
      descriptors.free();
    }
  }

  #candidates(descriptors: MatmulDescriptors, problem: MatmulProblem): Algorithm[] {
    return descriptors.algorithms(
      this.#handle,
      problem,
      (why) => this.#trust.refused(problem, why),
    );
  }

  /** The library's first choice, or of a large product the fastest; null where it has none. */
  #algorithm(product: Product, addresses: MatmulAddresses): Algorithm | null {
    const { problem, descriptors } = product;
    const candidates = () => this.#candidates(descriptors, problem);
    const { m, n, k, batch } = problem;
    const multiplications = m * n * k * (batch?.count ?? 1);
    if (multiplications < this.#device.measureFrom) return candidates()[0] ?? null;
    const time = (algorithm: Algorithm, runs: number) =>
      this.#milliseconds({ ...product, algorithm }, addresses, runs);
    const key = choiceKey(this.#device, this.calls.version, problem);
    return CHOICES.choose(key, () => fastestOf(candidates(), time));
  }

  /** Milliseconds of some runs; null where the library does not run it after all. */
  #milliseconds(
    product: Product & { readonly algorithm: Algorithm },
    addresses: MatmulAddresses,
    runs: number,
  ): number | null {
    return millisecondsOfRuns(this.#device, runs, () => {
      const status = this.#multiply(product, addresses, this.#device.compute);
      return this.calls.allows(status, MULTIPLY, doing(product.problem));
    });
  }

  /** Puts a product into a stream. */
  enqueue(prepared: PreparedMatmul, addresses: MatmulAddresses, stream: number): void {
    const status = this.#multiply(prepared as CublasLtMatmul, addresses, stream);
    if (status !== CUBLAS_STATUS.success) {
      throw this.calls.errorOf(status, MULTIPLY, doing(prepared.problem));
    }
    prepared.isWarm = true;
  }

  /** The library's status. */
  #multiply(
    { problem, descriptors, algorithm }: Product & { readonly algorithm: Algorithm },
    addresses: MatmulAddresses,
    stream: number,
  ): number {
    const adds = problem.addedStride > 0;
    const zero = addressOf(this.#factors[problem.operands === "int8" ? "int32" : "float32"]);
    const one = zero + 4;
    this.#factor[0] = problem.factor ?? 1; // read at once, as it lies on the host
    const factor = problem.operands === "int8" ? one : addressOf(this.#factor);
    descriptors.setVectors(problem, addresses);
    return this.calls.try(
      MULTIPLY,
      this.#handle,
      descriptors.operation,
      factor,
      addresses.weight,
      descriptors.weight,
      addresses.x,
      descriptors.x,
      adds ? one : zero,
      adds ? addresses.added : addresses.output,
      descriptors.added,
      addresses.output,
      descriptors.output,
      addressOf(algorithm.bytes),
      addresses.workspace,
      algorithm.workspaceBytes,
      stream,
    );
  }

  /** Ends it; nothing of it may still be running. */
  close(): void {
    for (const prepared of this.#prepared.values()) prepared?.descriptors.free();
    this.#prepared.clear();
    this.calls.try("cublasLtDestroy", this.#handle);
  }
}

function doing({ m, n, k }: MatmulProblem): string {
  return `multiply matrices [${m}, ${k}] and [${n}, ${k}]`;
}
