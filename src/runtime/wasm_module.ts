/** The WebAssembly modules that are kept as text, over shared memory or an ordinary one. */

import { HalftoneError } from "../errors.ts";

/** The bytes of a module that imports a shared memory, or over an ordinary one when `shared` is false. */
export function moduleBytes(base64: string, shared: boolean): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  if (!shared) unshare(bytes);
  return bytes;
}

/** Instantiates such a module over a memory. */
export async function instantiateOver<Exports>(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
): Promise<Exports> {
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  return instance.exports as unknown as Exports;
}

/**
 * For threads that share nothing, and pages without SharedArrayBuffer: the imported memory's limits lose their
 * "shared" bit. Atomic instructions are valid on such a memory too.
 */
function unshare(bytes: Uint8Array): void {
  // "env" "memory", then import kind 2 (memory) and flags 3 (maximum, shared).
  const pattern = [3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2, 3];
  for (let at = 0; at + pattern.length <= bytes.length; at++) {
    if (pattern.every((byte, index) => bytes[at + index] === byte)) {
      bytes[at + pattern.length - 1] = 1;
      return;
    }
  }
  throw new HalftoneError("backend_failed", "Cannot find the memory import of the wasm kernels");
}
