/** Calls into cuBLASLt: every status is checked and told with the library's own words. */

import { type ErrorDetail, HalftoneError } from "../../errors.ts";
import { addressOf, type ForeignFunctions, openLibrary, textAt } from "../../runtime/foreign.ts";
import { CUBLAS_LT_SYMBOLS, CUBLAS_STATUS, type CublasLtFunction } from "./cublas_lt_symbols.ts";

/** An opened cuBLASLt. */
export class CublasLtCalls {
  /** Such as 130101 for 13.1.1. */
  readonly version: number;
  readonly library: string;
  readonly #functions: ForeignFunctions<CublasLtFunction>;
  readonly #output = new BigUint64Array(new ArrayBuffer(8));

  /** Throws `backend_unavailable` when the library, or a function of it, is missing. */
  constructor(library: string) {
    this.library = library;
    this.#functions = openLibrary(library, CUBLAS_LT_SYMBOLS);
    this.version = this.#functions.cublasLtGetVersion();
  }

  /** Such as "13.1.1". */
  get versionText(): string {
    const { version } = this;
    return [version / 10000, version / 100 % 100, version % 100].map(Math.floor).join(".");
  }

  /** Calls a function and gives its status as it is. */
  try(name: CublasLtFunction, ...values: number[]): number {
    return this.#functions[name](...values);
  }

  /** Calls a function; throws what the library says when it fails at `doing`. */
  run(name: CublasLtFunction, doing: string, ...values: number[]): void {
    const status = this.try(name, ...values);
    if (status !== CUBLAS_STATUS.success) throw this.errorOf(status, name, doing);
  }

  /** The same, but false where the library does not support what is asked. */
  isSupported(name: CublasLtFunction, doing: string, ...values: number[]): boolean {
    const status = this.try(name, ...values);
    if (status === CUBLAS_STATUS.notSupported) return false;
    if (status !== CUBLAS_STATUS.success) throw this.errorOf(status, name, doing);
    return true;
  }

  /** Calls a function whose first parameter is where it writes a handle to; gives that handle. */
  get(name: CublasLtFunction, doing: string, ...values: number[]): number {
    this.#output[0] = 0n;
    this.run(name, doing, addressOf(this.#output), ...values);
    return Number(this.#output[0]);
  }

  /** What a failed call means; out of memory has a code of its own. */
  errorOf(status: number, name: CublasLtFunction, doing: string): HalftoneError {
    const isMemory = status === CUBLAS_STATUS.allocationFailed;
    const detail: ErrorDetail = { file: this.library, field: name, found: this.textOf(status) };
    return new HalftoneError(
      isMemory ? "out_of_memory" : "backend_failed",
      `Cannot ${doing}`,
      detail,
    );
  }

  /** Such as "CUBLAS_STATUS_NOT_SUPPORTED (15): the requested functionality is not supported". */
  textOf(status: number): string {
    const [name, text] = (["cublasLtGetStatusName", "cublasLtGetStatusString"] as const)
      .map((ask) => textAt(this.#functions[ask](status)));
    return `${name} (${status}): ${text}`;
  }
}
