/** Calls into one of NVIDIA's libraries: every status is checked and told with the library's own words. */

import { type ErrorDetail, HalftoneError } from "../../errors.ts";
import {
  addressOf,
  type ForeignFunctions,
  type ForeignSignature,
  type ForeignType,
  openLibrary,
} from "../../runtime/foreign.ts";

/** A signature by letters: "p" is an address, "h" a handle, "s" a size; "i" has 32 bits. */
export function signature(parameters: string, result: ForeignType = "i32"): ForeignSignature {
  const types: Record<string, ForeignType> = { p: "u64", h: "u64", s: "u64", i: "i32" };
  return { parameters: [...parameters].map((letter) => types[letter]!), result };
}

/** What a failed call means to its caller. */
export type StatusMeaning = "success" | "out of memory" | "not supported" | "failed";

/** An opened library. */
export abstract class LibraryCalls<Name extends string> {
  readonly library: string;
  protected readonly functions: ForeignFunctions<Name>;
  readonly #output = new BigUint64Array(new ArrayBuffer(8));

  /** Throws `backend_unavailable` when the library, or a function of it, is missing. */
  constructor(library: string, signatures: Readonly<Record<Name, ForeignSignature>>) {
    this.library = library;
    this.functions = openLibrary(library, signatures);
  }

  /** What a status means. */
  abstract meaningOf(status: number): StatusMeaning;

  /** Such as "CUBLAS_STATUS_NOT_SUPPORTED (15): the requested functionality is not supported". */
  abstract textOf(status: number): string;

  /** Calls a function and gives its status as it is. */
  try(name: Name, ...values: number[]): number {
    return this.functions[name](...values);
  }

  /** Calls a function; throws what the library says when it fails at `doing`. */
  run(name: Name, doing: string, ...values: number[]): void {
    const status = this.try(name, ...values);
    if (this.meaningOf(status) !== "success") throw this.errorOf(status, name, doing);
  }

  /** The same, but false where the library does not support what is asked. */
  isSupported(name: Name, doing: string, ...values: number[]): boolean {
    return this.allows(this.try(name, ...values), name, doing);
  }

  /** Whether a status means success, false where it means that the library does not support what was asked. */
  allows(status: number, name: Name, doing: string): boolean {
    const meaning = this.meaningOf(status);
    if (meaning === "success" || meaning === "not supported") return meaning === "success";
    throw this.errorOf(status, name, doing);
  }

  /** Calls a function whose first parameter is where it writes a handle to; gives that handle. */
  get(name: Name, doing: string, ...values: number[]): number {
    this.#output[0] = 0n;
    this.run(name, doing, addressOf(this.#output), ...values);
    return Number(this.#output[0]);
  }

  /** What a failed call means; out of memory has a code of its own. */
  errorOf(status: number, name: Name, doing: string): HalftoneError {
    const isMemory = this.meaningOf(status) === "out of memory";
    const detail: ErrorDetail = { file: this.library, field: name, found: this.textOf(status) };
    return new HalftoneError(
      isMemory ? "out_of_memory" : "backend_failed",
      `Cannot ${doing}`,
      detail,
    );
  }
}

/** The first library that opens and starts; a string says why none does. */
export function openFirst<Library>(
  libraries: readonly string[],
  open: (library: string) => Library,
): Library | string {
  const reasons: string[] = [];
  for (const library of libraries) {
    try {
      return open(library);
    } catch (error) {
      if (!(error instanceof HalftoneError)) throw error;
      reasons.push(error.message);
    }
  }
  return reasons.at(-1) ?? "there is none on the library path or in Python's packages";
}

/** A version of a library as people write it: 130101 is 13.1.1. */
export function libraryVersionText(version: number): string {
  return [version / 10000, version / 100 % 100, version % 100].map(Math.floor).join(".");
}
