/**
 * Calls into native libraries, on Deno and Bun. Arguments are whole numbers only: integers, sizes, handles and
 * addresses. Addresses are numbers here, exact below 2^53, which every user-space address is.
 */

import { HalftoneError } from "../errors.ts";

/** Types of arguments; addresses, sizes and handles are "u64". */
export type ForeignType = "i32" | "u32" | "u64";

/** What a function takes and gives. */
export interface ForeignSignature {
  readonly parameters: readonly ForeignType[];
  readonly result: ForeignType | "void";
}

/** Functions of a library by name. */
export type ForeignFunctions<Name extends string> = Readonly<
  Record<Name, (...values: number[]) => number>
>;

interface DenoPointers {
  of(view: ArrayBufferView): unknown;
  value(pointer: unknown): bigint | number;
  create(address: bigint): unknown;
}

interface DenoForeign {
  dlopen(path: string, symbols: Record<string, unknown>): { symbols: Record<string, ForeignCall> };
  UnsafePointer: DenoPointers;
  UnsafePointerView: {
    getCString(pointer: unknown): string;
    getArrayBuffer(pointer: unknown, bytes: number): ArrayBuffer;
  };
}

interface BunForeign {
  dlopen(path: string, symbols: Record<string, unknown>): { symbols: Record<string, ForeignCall> };
  ptr(view: ArrayBufferView): number;
  CString: new (address: number) => { toString(): string };
  toArrayBuffer(address: number, offset: number, bytes: number): ArrayBuffer;
}

type ForeignCall = (...values: (number | bigint)[]) => number | bigint | undefined;

const globals = globalThis as { Deno?: DenoForeign; Bun?: { FFI?: BunForeign } };
const deno = globals.Deno?.dlopen === undefined ? undefined : globals.Deno;
const bun = globals.Bun?.FFI;

/** Whether native libraries can be called here. */
export function hasForeignFunctions(): boolean {
  return deno !== undefined || bun !== undefined;
}

/**
 * Opens a library by path, or by name on the loader's own path, and finds its functions. It stays open until
 * the process ends. Throws `backend_unavailable` when it, or a function, is not there.
 */
export function openLibrary<Name extends string>(
  path: string,
  signatures: Readonly<Record<Name, ForeignSignature>>,
): ForeignFunctions<Name> {
  try {
    const { symbols } = load(path, signatures);
    const functions = Object.entries<ForeignSignature>(signatures)
      .map(([name, { parameters }]) => [name, withNumbers(symbols[name], parameters)]);
    return Object.fromEntries(functions);
  } catch (cause) {
    throw new HalftoneError("backend_unavailable", "Cannot open a native library", {
      file: path,
      found: cause instanceof Error ? cause.message : String(cause),
    }, cause);
  }
}

/** glibc's flag for finding all symbols at once. */
const RTLD_NOW = 2;

/**
 * Loads a library that another one will ask for by its bare name, which the loader would not find. False where
 * it cannot be loaded. It stays until the process ends.
 */
export function preloadLibrary(path: string): boolean {
  try {
    if (deno) return deno.dlopen(path, {}) !== undefined;
    // Bun opens no library without asking for a function of it.
    const { dlopen } = openLibrary("libc.so.6", {
      dlopen: { parameters: ["u64", "i32"], result: "u64" },
    });
    const name = new TextEncoder().encode(`${path}\0`);
    return dlopen(addressOf(name), RTLD_NOW) !== 0;
  } catch {
    return false;
  }
}

function load(path: string, signatures: Readonly<Record<string, ForeignSignature>>) {
  const entries = Object.entries(signatures);
  if (deno) return deno.dlopen(path, { ...signatures });
  if (!bun) throw new Error("this runtime calls no native libraries");
  const symbols = entries.map(([name, { parameters, result }]) => [
    name,
    { args: parameters, returns: result },
  ]);
  const opened: unknown = bun.dlopen(path, Object.fromEntries(symbols));
  if (opened instanceof Error) throw opened; // what Bun gives for a library or a function that is missing
  return opened as ReturnType<BunForeign["dlopen"]>;
}

/** Sizes and addresses go in as BigInt, the one form both runtimes take exactly. */
function withNumbers(call: ForeignCall, parameters: readonly ForeignType[]) {
  return (...values: number[]): number =>
    Number(
      call(...values.map((value, index) => parameters[index] === "u64" ? BigInt(value) : value)) ??
        0,
    );
}

/** The address of a view's first byte; valid while the caller holds the view. */
export function addressOf(view: ArrayBufferView): number {
  if (deno) return Number(deno.UnsafePointer.value(deno.UnsafePointer.of(view)));
  return bun!.ptr(view);
}

/** The text of a C string. */
export function textAt(address: number): string {
  if (!deno) return new bun!.CString(address).toString();
  return deno.UnsafePointerView.getCString(deno.UnsafePointer.create(BigInt(address)));
}

/** The bytes at an address, seen and not copied; valid while the library keeps them. */
export function bytesAt(address: number, bytes: number): Uint8Array<ArrayBuffer> {
  if (!deno) return new Uint8Array(bun!.toArrayBuffer(address, 0, bytes));
  const pointer = deno.UnsafePointer.create(BigInt(address));
  return new Uint8Array(deno.UnsafePointerView.getArrayBuffer(pointer, bytes));
}
