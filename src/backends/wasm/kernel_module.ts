/** Chooses, checks and compiles a build of the kernels. */

import { HalftoneError } from "../../errors.ts";
import { instantiateOver, moduleBytes } from "../../runtime/wasm_module.ts";

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
  const bytes = moduleBytes(await moduleText(name), options.shared);
  try {
    const module = await WebAssembly.compile(bytes);
    return { name, module };
  } catch (cause) {
    throw new HalftoneError("backend_unavailable", "Cannot compile the wasm kernels", {
      remedy: "Use an engine with WebAssembly SIMD and threads, or the reference backend",
    }, cause);
  }
}

async function moduleText(name: "plain" | "relaxed"): Promise<string> {
  const { MODULE_BASE64 } = name === "relaxed"
    ? await import("./generated/kernels_relaxed.ts")
    : await import("./generated/kernels_plain.ts");
  return MODULE_BASE64;
}

/** Instantiates the kernels over a memory. */
export function instantiateKernels(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
): Promise<KernelExports> {
  return instantiateOver(module, memory);
}
