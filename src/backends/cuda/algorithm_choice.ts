/** Which of a library's algorithms is the fastest on this device: timed once in a process, then remembered. */

/** Multiplications from which algorithms are timed by default: below, a launch takes longer than its work. */
export const MEASURED_MULTIPLICATIONS = 2 ** 32;
/** Runs that are timed, after one that is not: it may load code. */
const TIMED_RUNS = 3;
/** Milliseconds of the device after which no further algorithm is tried. */
const MOST_MILLISECONDS = 40;

/** A device on which algorithms are timed. */
export interface TimedDevice {
  readonly name: string;
  /** Compute capability, such as 90. */
  readonly capability: number;
  /** Multiplications from which the algorithms of a product, attention or convolution are timed. */
  readonly measureFrom: number;
  /** Milliseconds that the device takes for what `enqueue` puts into the stream. */
  milliseconds(enqueue: () => void): number;
}

/** What a choice holds for. */
export function choiceKey(device: TimedDevice, version: number, problem: object): string {
  return JSON.stringify([device.name, device.capability, version, problem]);
}

/** Choices of a library by what they hold for, for all backends of a process. */
export class RememberedChoices<Choice> {
  readonly #made = new Map<string, Choice>();

  /** The choice made before for `key`, or null. */
  known(key: string): Choice | null {
    return this.#made.get(key) ?? null;
  }

  /** The choice made before for `key`, or the one that `choose` makes; null is not remembered. */
  choose(key: string, choose: () => Choice | null): Choice | null {
    const known = this.known(key);
    if (known !== null) return known;
    const chosen = choose();
    if (chosen !== null) this.#made.set(key, chosen);
    return chosen;
  }
}

/**
 * The fastest of the candidates, the first of those that are alike. `time` gives the milliseconds of some runs of one,
 * or null where it cannot be run.
 */
export function fastestOf<Candidate>(
  candidates: readonly Candidate[],
  time: (candidate: Candidate, runs: number) => number | null,
): Candidate | null {
  let best: Candidate | null = null;
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

/** Milliseconds of some runs; null where `run` says that the library does not run it after all. */
export function millisecondsOfRuns(
  device: TimedDevice,
  runs: number,
  run: () => boolean,
): number | null {
  let isRun = true;
  const taken = device.milliseconds(() => {
    for (let done = 0; done < runs && isRun; done++) isRun = run();
  });
  return isRun ? taken : null;
}
