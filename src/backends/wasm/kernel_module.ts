/** Chooses, checks and compiles a build of the kernels. */

import { HalftoneError } from "../../errors.ts";

/** What the module exports. */
export interface KernelExports {
  run_tape(
    tape: number,
    steps: number,
    control: number,
    thread: number,
    threads: number,
    scratch: number,
  ): number;
  scratch_bytes(): number;
  self_test(): number;
  run_microkernel(kind: number, times: number, scratch: number): number;
  readonly __stack_pointer: WebAssembly.Global;
  readonly __heap_base: WebAssembly.Global;
}

/** A compiled build. */
export interface KernelModule {
  readonly name: "plain" | "relaxed";
  readonly module: WebAssembly.Module;
}

/** A module of one function with one f32x4.relaxed_madd: valid where relaxed SIMD is. */
// deno-fmt-ignore
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, // header
  1, 5, 1, 96, 0, 1, 123, // type: () -> v128
  3, 2, 1, 0, // function 0
  10, 19, 1, 17, 0, // code
  65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15, 253, 133, 2, 11,
]);

/** Whether this engine runs relaxed SIMD. */
export function hasRelaxedSimd(): boolean {
  return WebAssembly.validate(RELAXED_PROBE);
}

/** Compiles the relaxed build where it may and can run, else the plain one. */
export async function compileKernels(
  options: { strict: boolean; shared: boolean },
): Promise<KernelModule> {
  if (typeof WebAssembly !== "object") {
    throw new HalftoneError("backend_unavailable", "Cannot start wasm: no WebAssembly here");
  }
  const name = !options.strict && hasRelaxedSimd() ? "relaxed" : "plain";
  const bytes = await moduleBytes(name);
  try {
    const module = await WebAssembly.compile(options.shared ? bytes : unshared(bytes));
    return { name, module };
  } catch (cause) {
    throw new HalftoneError("backend_unavailable", "Cannot compile the wasm kernels", {
      remedy: "Use an engine with WebAssembly SIMD and threads, or the reference backend",
    }, cause);
  }
}

async function moduleBytes(name: "plain" | "relaxed"): Promise<Uint8Array<ArrayBuffer>> {
  const { MODULE_BASE64 } = name === "relaxed"
    ? await import("./generated/kernels_relaxed.ts")
    : await import("./generated/kernels_plain.ts");
  return Uint8Array.from(atob(MODULE_BASE64), (character) => character.charCodeAt(0));
}

/**
 * The same module over an ordinary memory, for pages without SharedArrayBuffer: the imported memory's
 * limits lose their "shared" bit. Atomic instructions are valid on such a memory too.
 */
function unshared(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  // "env" "memory", then import kind 2 (memory) and flags 3 (maximum, shared).
  const pattern = [3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2, 3];
  const copy = bytes.slice();
  for (let at = 0; at + pattern.length <= copy.length; at++) {
    if (pattern.every((byte, index) => copy[at + index] === byte)) {
      copy[at + pattern.length - 1] = 1;
      return copy;
    }
  }
  throw new HalftoneError("backend_failed", "Cannot find the memory import of the wasm kernels");
}

/** Instantiates the kernels over a memory. */
export async function instantiateKernels(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
): Promise<KernelExports> {
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  return instance.exports as unknown as KernelExports;
}
