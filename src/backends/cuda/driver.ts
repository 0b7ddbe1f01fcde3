/** NVIDIA's driver: every call's result is checked and told with the driver's own words. */

import { type ErrorDetail, HalftoneError } from "../../errors.ts";
import {
  addressOf,
  type ForeignFunctions,
  hasForeignFunctions,
  openLibrary,
  textAt,
} from "../../runtime/foreign.ts";
import {
  CUDA,
  DRIVER_SYMBOLS,
  type DriverFunction,
  LEAST_DRIVER,
  VERSION_SYMBOLS,
} from "./driver_symbols.ts";

/** Where the driver is found by default. */
export const DRIVER_LIBRARY = "libcuda.so.1";

/** A 64-bit word that the driver writes a handle, an address or a size to. */
class OutputWord {
  readonly words = new BigUint64Array(new ArrayBuffer(8));
  readonly address: number = addressOf(this.words);
  get value(): number {
    return Number(this.words[0]);
  }
}

/** An opened driver. */
export class Driver {
  /** Such as 12080 for 12.8. */
  readonly version: number;
  readonly #functions: ForeignFunctions<DriverFunction>;
  readonly #first = new OutputWord();
  readonly #second = new OutputWord();

  private constructor(version: number, functions: ForeignFunctions<DriverFunction>) {
    this.version = version;
    this.#functions = functions;
  }

  /** Opens and starts the driver; throws `backend_unavailable` when it is missing, too old or has no device. */
  static open(library: string = DRIVER_LIBRARY): Driver {
    if (!hasForeignFunctions()) throw unavailable("this runtime calls no native libraries", {});
    const version = new OutputWord();
    openLibrary(library, VERSION_SYMBOLS).cuDriverGetVersion(version.address);
    if (version.value < LEAST_DRIVER) {
      throw unavailable("the driver is too old", {
        file: library,
        found: versionText(version.value),
        expected: `CUDA ${versionText(LEAST_DRIVER)} or newer`,
        remedy: "Update NVIDIA's driver, or use --backend wasm",
      });
    }
    const driver = new Driver(version.value, openLibrary(library, DRIVER_SYMBOLS));
    driver.#start(library);
    return driver;
  }

  #start(library: string): void {
    const result = this.try("cuInit", 0);
    if (result === CUDA.success) return;
    throw unavailable(
      result === CUDA.noDevice ? "there is no device" : "the driver does not start",
      {
        file: library,
        found: this.textOf(result),
      },
    );
  }

  /** Calls a function and gives its result as it is. */
  try(name: DriverFunction, ...values: number[]): number {
    return this.#functions[name](...values);
  }

  /** Calls a function; throws what the driver says when it fails at `doing` ("launch a kernel"). */
  run(name: DriverFunction, doing: string, ...values: number[]): void {
    const result = this.try(name, ...values);
    if (result !== CUDA.success) throw this.errorOf(result, name, doing);
  }

  /** Calls a function whose first parameter is where it writes a word to; gives that word. */
  get(name: DriverFunction, doing: string, ...values: number[]): number {
    this.#first.words[0] = 0n;
    this.run(name, doing, this.#first.address, ...values);
    return this.#first.value;
  }

  /** The same for a second parameter after it. */
  getTwo(name: DriverFunction, doing: string): [first: number, second: number] {
    const first = this.get(name, doing, this.#second.address);
    return [first, this.#second.value];
  }

  /** The same for a function that writes after its first parameter. */
  getFrom(name: DriverFunction, doing: string, value: number): number {
    this.#first.words[0] = 0n;
    this.run(name, doing, value, this.#first.address);
    return this.#first.value;
  }

  /** What a failed call means; out of memory has a code of its own. */
  errorOf(result: number, name: DriverFunction, doing: string): HalftoneError {
    const isMemory = result === CUDA.outOfMemory;
    return new HalftoneError(isMemory ? "out_of_memory" : "backend_failed", `Cannot ${doing}`, {
      field: name,
      found: this.textOf(result),
      remedy: isMemory
        ? "Choose quantized weights, a smaller picture, or a smaller residentWeightBytes"
        : undefined,
    });
  }

  /** Such as "CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected". */
  textOf(result: number): string {
    const [name, text] = (["cuGetErrorName", "cuGetErrorString"] as const).map((ask) => {
      const failed = this.#functions[ask](result, this.#first.address) !== CUDA.success;
      return failed || this.#first.value === 0 ? "unknown" : textAt(this.#first.value);
    });
    return `${name} (${result}): ${text}`;
  }
}

/** "12.8" of 12080. */
export function versionText(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor(version % 1000 / 10)}`;
}

/** CUDA is not for this machine. */
export function unavailable(reason: string, detail: ErrorDetail): HalftoneError {
  return new HalftoneError("backend_unavailable", `Cannot start cuda: ${reason}`, detail);
}
