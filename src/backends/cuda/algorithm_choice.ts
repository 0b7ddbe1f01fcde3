/** Which of a library's algorithms is the fastest on this device: timed once in a process, then remembered. */

import type { Algorithm } from "./cublas_lt_descriptors.ts";

/** Multiplications from which algorithms are timed by default: below, a launch takes longer than its product. */
export const MEASURED_MULTIPLICATIONS = 2 ** 32;
/** Runs that are timed, after one that is not: it may load code. */
const TIMED_RUNS = 3;
/** Milliseconds of the device after which no further algorithm is tried. */
const MOST_MILLISECONDS = 40;

/** Choices by what they hold for: device, version of the library, product. */
const choices = new Map<string, Algorithm>();

/** The choice made before for `key`, or the one that `choose` makes; null is not remembered. */
export function rememberedChoice(key: string, choose: () => Algorithm | null): Algorithm | null {
  const known = choices.get(key);
  if (known) return known;
  const chosen = choose();
  if (chosen) choices.set(key, chosen);
  return chosen;
}

/**
 * The fastest of the candidates, the first of those that are alike. `time` gives the milliseconds of some runs of one,
 * or null where it cannot be run.
 */
export function fastestOf(
  candidates: readonly Algorithm[],
  time: (candidate: Algorithm, runs: number) => number | null,
): Algorithm | null {
  let best: Algorithm | null = null;
  let least = Infinity;
  let spent = 0;
  for (const candidate of candidates) {
    if (spent >= MOST_MILLISECONDS) break;
    if (time(candidate, 1) === null) continue;
    const taken = time(candidate, TIMED_RUNS) ?? Infinity;
    spent += taken * (TIMED_RUNS + 1) / TIMED_RUNS;
    if (taken < least) [best, least] = [candidate, taken];
  }
  return best;
}
