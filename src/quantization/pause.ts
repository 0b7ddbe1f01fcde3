/** Long conversions let the event loop turn now and then, so that a server stays responsive. */

import { cpuCount } from "../runtime/system.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";

/** How a conversion shares the machine with others. */
export interface Pause {
  /** Gives way to the event loop; a conversion awaits it between slices. */
  (): Promise<void>;
  /** Workers it may use; below 2, or when absent, it works on the calling thread. */
  readonly threads?: number;
  /** Where results may lie until that is reset; they get memory of their own when it is absent. */
  readonly scratch?: ScratchBytes;
}

/** Milliseconds of work after which the event loop gets its turn. */
const BUDGET = 10;
/** More workers than this wait for the one that hands out the work. */
const MOST_THREADS = 8;

/** A pause that returns at once until the budget since the last turn is spent; one worker per processor. */
export function createPause(
  { threads = Math.min(MOST_THREADS, cpuCount()), scratch }: Pick<Pause, "threads" | "scratch"> =
    {},
): Pause {
  let last = performance.now();
  const pause = async () => {
    if (performance.now() - last < BUDGET) return;
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    last = performance.now();
  };
  return Object.assign(pause, { threads, scratch });
}
