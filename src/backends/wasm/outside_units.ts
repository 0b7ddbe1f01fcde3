/** Weights that lie outside WebAssembly memory, on the thread that copies them into the streaming slots. */

/**
 * Units by number, each in a plain buffer of its own: of shared ones an engine gives the memory back when it next
 * collects garbage, which may be long after the weights of the next model have come beside them.
 */
export class OutsideUnits {
  readonly #units = new Map<number, Uint8Array<ArrayBuffer>>();

  add(id: number, unit: Uint8Array<ArrayBuffer>): void {
    this.#units.set(id, unit);
  }

  /** Copies a unit to an address. */
  copy(id: number, memory: WebAssembly.Memory, address: number): void {
    const unit = this.#units.get(id)!;
    new Uint8Array(memory.buffer, address, unit.byteLength).set(unit);
  }

  /** Gives the memory of units back now. */
  free(ids: readonly number[]): void {
    for (const id of ids) {
      this.#units.get(id)?.buffer.transfer(0); // the old buffer is detached, the new one has no bytes
      this.#units.delete(id);
    }
  }
}
