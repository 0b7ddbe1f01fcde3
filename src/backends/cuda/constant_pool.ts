/** Values that kernels read and that are known when a plan is compiled: laid out while it is encoded. */

import { aligned } from "../alignment.ts";

/** Values at addresses that follow each other. */
export class ConstantPool {
  /** Bytes of all values so far, each rounded up to the alignment. */
  bytes = 0;
  readonly #address: number;
  readonly #values: { readonly at: number; readonly values: Float32Array }[] = [];

  /** The pool's values will lie at `address`. */
  constructor(address: number) {
    this.#address = address;
  }

  /** Gives values their address. */
  place(values: Float32Array): number {
    const at = this.#address + this.bytes;
    this.#values.push({ at, values });
    this.bytes += aligned(values.byteLength);
    return at;
  }

  /** Calls `upload` with each address and its bytes. */
  forEach(upload: (address: number, bytes: Uint8Array) => void): void {
    for (const { at, values } of this.#values) {
      upload(at, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  }
}
