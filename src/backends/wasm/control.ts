/** The words the host and the workers share during a run; kernels-wasm/src/control.rs holds the same numbers. */

/** Word offsets in the control block. */
export const CONTROL = {
  generation: 16,
  stop: 64,
  abort: 65,
  dead: 66,
  error: 67,
  errorStep: 68,
  errorValue: 69,
  loaded: 70,
  consumed: 71,
  spin: 72,
} as const;

/** Bytes of the control block. */
export const CONTROL_BYTES = 320;

/** Errors a kernel may raise (word `error`). */
export const KERNEL_ERROR = { gatherRange: 1, opcode: 2 } as const;

/** Words that a run starts from zero; the barrier's own words are never touched. */
const PER_RUN = [
  CONTROL.stop,
  CONTROL.abort,
  CONTROL.error,
  CONTROL.errorStep,
  CONTROL.errorValue,
  CONTROL.loaded,
  CONTROL.consumed,
];

/** Clears what an earlier run left. */
export function resetControl(words: Int32Array): void {
  for (const word of PER_RUN) Atomics.store(words, word, 0);
}

/** Ends the run for all workers although one of them will never reach the barrier. */
export function markDead(words: Int32Array): void {
  Atomics.store(words, CONTROL.dead, 1);
  Atomics.add(words, CONTROL.generation, 1); // sleepers compare this word before they sleep
  Atomics.notify(words, CONTROL.generation);
  Atomics.notify(words, CONTROL.loaded);
  Atomics.notify(words, CONTROL.consumed);
}

/** Whether the run must end before its tape does. */
export function mustStop(words: Int32Array): boolean {
  return Atomics.load(words, CONTROL.abort) !== 0 || Atomics.load(words, CONTROL.dead) !== 0 ||
    Atomics.load(words, CONTROL.error) !== 0;
}
