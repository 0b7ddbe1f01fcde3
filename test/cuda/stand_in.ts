/** The stand-in for NVIDIA's driver, cuBLASLt and cuDNN, in one library: built once per state of its sources, opened through the same seam as the real one. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { KERNEL_NAMES, type KernelName } from "../../src/backends/cuda/kernel_names.ts";
import { type ErrorCode, HalftoneError } from "../../src/errors.ts";
import { addressOf, openLibrary } from "../../src/runtime/foreign.ts";

/** Names as C has them. */
const names = new Map(KERNEL_NAMES.map((name) => [name, new TextEncoder().encode(`${name}\0`)]));
const SOURCES = fileURLToPath(new URL("../../kernels-cuda/", import.meta.url));

/** What can be set; the numbers are those of kernels-cuda/stand_in/driver.h. */
const SETTINGS = {
  driverVersion: 0,
  deviceCount: 1,
  failAllocation: 2,
  failLaunch: 3,
  memoryBytes: 4,
  capability: 5,
  failExecution: 6,
  miscalculate: 7,
  libraryVersion: 8,
  failLibraryStart: 9,
  refuseProducts: 10,
  failProduct: 11,
  miscalculateProducts: 12,
  cudnnVersion: 13,
  failCudnnStart: 14,
  failCudnn: 15,
  refuseOperations: 16,
  miscalculateOperations: 17,
  productMicroseconds: 18,
  fastestAlgorithm: 19,
  failEvent: 20,
  failCompiler: 21,
  operationMicroseconds: 22,
  fastestEngine: 23,
  threadOrder: 24,
} as const;
const COUNTS = {
  allocations: 0,
  bytes: 1,
  objects: 2,
  launches: 3,
  products: 4,
  devicePeak: 5,
  integerProducts: 6,
  float8Products: 7,
  operations: 8,
  heuristics: 9,
  lastAlgorithm: 10,
  lastEngine: 11,
  plansMade: 12,
  livePlans: 13,
} as const;

/** Values of `threadOrder`: threads and blocks as they are numbered, the other way round, by a seed. */
export const THREAD_ORDERS = { numbered: 0, reversed: 1, shuffled: 2 } as const;

/** What a fresh stand-in is: one device with 8 GiB under CUDA 12.8, cuBLASLt 13.1.1 and cuDNN 9.20.0. */
const DEFAULTS: Readonly<Record<keyof typeof SETTINGS, number>> = {
  driverVersion: 12080,
  deviceCount: 1,
  failAllocation: 0,
  failLaunch: 0,
  memoryBytes: 8 * 2 ** 30,
  capability: 90,
  failExecution: 0,
  miscalculate: 0,
  libraryVersion: 130101,
  failLibraryStart: 0,
  refuseProducts: 0,
  failProduct: 0,
  miscalculateProducts: 0,
  cudnnVersion: 92000,
  failCudnnStart: 0,
  failCudnn: 0,
  refuseOperations: 0,
  miscalculateOperations: 0,
  productMicroseconds: 0,
  fastestAlgorithm: 0,
  failEvent: 0,
  failCompiler: 0,
  operationMicroseconds: 0,
  fastestEngine: 0,
  threadOrder: 0,
};

/** A built stand-in. */
export interface StandIn {
  readonly library: string;
  /** Options that make a backend use it for everything. */
  readonly libraries: {
    readonly driverLibrary: string;
    readonly cublasLtLibrary: string;
    readonly cudnnLibrary: string;
  };
  /** Changes settings; those that fail count calls from now, 0 for none. */
  set(settings: Partial<Record<keyof typeof SETTINGS, number>>): void;
  /** Sets everything back. */
  reset(): void;
  /** What is alive, and how many kernels ran. */
  count(what: keyof typeof COUNTS): number;
  /** The size of a kernel's parameters as the host's compiler lays them out. */
  parameterBytesOf(kernel: KernelName): number;
  /** How often a kernel ran. */
  launchesOf(kernel: KernelName): number;
  /** Throws when anything is alive. */
  assertNothingHeld(): void;
}

/** Awaits an action that must fail so. */
export async function failsWith(
  action: Promise<unknown>,
  code: ErrorCode,
  expected: RegExp,
): Promise<void> {
  await assert.rejects(action, (error) => {
    assert.ok(error instanceof HalftoneError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, expected);
    return true;
  });
}

/**
 * Builds and opens the stand-in; a string is the reason why it cannot be had here. Each file of tests opens a
 * copy of its own, because one process may run several and a library has one state.
 */
export function openStandIn(user: string): StandIn | string {
  if (process.platform !== "linux") return "the stand-in driver is built on Linux only";
  const compiler = process.env.CXX ?? "g++";
  try {
    execFileSync(compiler, ["--version"], { stdio: "ignore" });
  } catch {
    return `there is no C++ compiler (${compiler})`;
  }
  return control(copyFor(user, build()));
}

/** The library for these sources: made aside and renamed, so that tests may run side by side. */
function build(): string {
  const folder = join(tmpdir(), `halftone-stand-in-${process.getuid?.() ?? 0}`);
  const library = join(folder, `${sourceHash()}.so`);
  if (existsSync(library)) return library;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const aside = `${library}.${process.pid}`;
  execFileSync("sh", [join(SOURCES, "stand_in/build.sh"), aside], { stdio: "inherit" });
  renameSync(aside, library);
  return library;
}

function copyFor(user: string, library: string): string {
  const copy = library.replace(/\.so$/, `-${user}.so`);
  if (existsSync(copy)) return copy;
  const aside = `${copy}.${process.pid}`;
  copyFileSync(library, aside);
  renameSync(aside, copy);
  return copy;
}

function sourceHash(): string {
  const hash = createHash("sha256");
  const names = ["", "stand_in/"].flatMap((folder) =>
    readdirSync(join(SOURCES, folder)).sort().map((name) => folder + name)
  );
  for (const name of names.filter((name) => /\.(cu|h|cpp|sh)$/.test(name))) {
    hash.update(`${name}\0`).update(readFileSync(join(SOURCES, name)));
  }
  return hash.digest("hex").slice(0, 16);
}

function control(library: string): StandIn {
  const functions = openLibrary(library, {
    halftone_stand_in_set: { parameters: ["i32", "u64"], result: "void" },
    halftone_stand_in_count: { parameters: ["i32"], result: "u64" },
    halftone_stand_in_parameter_bytes: { parameters: ["u64"], result: "u64" },
    halftone_stand_in_launches: { parameters: ["u64"], result: "u64" },
  });
  const set: StandIn["set"] = (settings) => {
    for (const [name, value] of Object.entries(settings)) {
      functions.halftone_stand_in_set(SETTINGS[name as keyof typeof SETTINGS], value);
    }
  };
  const count: StandIn["count"] = (what) => functions.halftone_stand_in_count(COUNTS[what]);
  const nameOf = (kernel: KernelName) => addressOf(names.get(kernel)!);
  return {
    library,
    libraries: { driverLibrary: library, cublasLtLibrary: library, cudnnLibrary: library },
    set,
    reset: () => set(DEFAULTS),
    count,
    parameterBytesOf: (kernel) => functions.halftone_stand_in_parameter_bytes(nameOf(kernel)),
    launchesOf: (kernel) => functions.halftone_stand_in_launches(nameOf(kernel)),
    assertNothingHeld: () =>
      assert.deepEqual((["allocations", "bytes", "objects"] as const).map(count), [0, 0, 0]),
  };
}
