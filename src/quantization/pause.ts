/** Long conversions let the event loop turn now and then, so that a server stays responsive. */

/** Gives way to the event loop; a conversion awaits it between slices. */
export type Pause = () => Promise<void>;

/** Milliseconds of work after which the event loop gets its turn. */
const BUDGET = 10;

/** A pause that returns at once until the budget since the last turn is spent. */
export function createPause(): Pause {
  let last = performance.now();
  return async () => {
    if (performance.now() - last < BUDGET) return;
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    last = performance.now();
  };
}
