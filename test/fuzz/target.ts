/** What a fuzzer is, and what must hold whatever it is fed. */

import { HalftoneError } from "../../src/errors.ts";
import { withAllocationLimit } from "./allocation_limit.ts";
import type { Random } from "./random.ts";

/** Something that reads input nobody checked. `Input` is JSON with Uint8Arrays in it. */
export interface FuzzTarget<Input = unknown> {
  readonly name: string;
  /** How many times slower than others it is; it gets so many times fewer executions. */
  readonly slowness?: number;
  /** An input that is almost right, sometimes right. */
  make(random: Random): Input;
  /** How many bytes the input would have as a file. */
  size(input: Input): number;
  /** Reads it. Throws a HalftoneError for what is wrong, and nothing else. */
  run(input: Input): unknown;
}

/** The most bytes that may be allocated beyond the input's own size. */
const SPARE_BYTES = 64 * 2 ** 20;
/** The longest that an input may take. */
const LIMIT_MS = 1000;

/** Whether the input was read; throws what it should not have thrown, or that it took too much. */
export async function observe<Input>(target: FuzzTarget<Input>, input: Input): Promise<boolean> {
  let milliseconds = Infinity;
  let accepted = false;
  // Another process may have had the processor: only what is slow three times is slow.
  for (let attempt = 0; attempt < 3 && milliseconds > LIMIT_MS; attempt++) {
    const start = performance.now();
    accepted = await isAccepted(target, input);
    milliseconds = performance.now() - start;
  }
  if (milliseconds > LIMIT_MS) throw new Error(`it took ${milliseconds} ms`);
  return accepted;
}

async function isAccepted<Input>(target: FuzzTarget<Input>, input: Input): Promise<boolean> {
  try {
    await withAllocationLimit(target.size(input) + SPARE_BYTES, () => target.run(input));
    return true;
  } catch (error) {
    if (error instanceof HalftoneError) return false;
    throw error;
  }
}
