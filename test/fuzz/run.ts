/** Runs fuzzers from seeds. */

import { Random } from "./random.ts";
import { type FuzzTarget, observe } from "./target.ts";

/** What came of a number of executions. */
export interface FuzzReport {
  readonly target: string;
  readonly executions: number;
  /** How many inputs were read; the others were refused with a HalftoneError. */
  readonly accepted: number;
  readonly failures: readonly FuzzFailure[];
  readonly seconds: number;
}

/** An input that broke a rule. */
export interface FuzzFailure {
  readonly seed: number;
  readonly error: unknown;
  readonly input: unknown;
}

/** A target that fails this often is broken; the rest says nothing new. */
const MOST_FAILURES = 20;

/** Feeds a target the inputs of the seeds `firstSeed`, `firstSeed` + 1 ... */
export async function fuzz(
  target: FuzzTarget,
  executions: number,
  firstSeed: number,
): Promise<FuzzReport> {
  const start = performance.now();
  const frames = Error.stackTraceLimit;
  Error.stackTraceLimit = 0; // which most of the time would go into
  const failures: FuzzFailure[] = [];
  let accepted = 0;
  let done = 0;
  for (; done < executions && failures.length < MOST_FAILURES; done++) {
    const seed = firstSeed + done;
    const input = target.make(new Random(seed));
    try {
      if (await observe(target, input)) accepted++;
    } catch {
      Error.stackTraceLimit = frames;
      failures.push({ seed, error: await failureOf(target, input), input });
      Error.stackTraceLimit = 0;
    }
  }
  Error.stackTraceLimit = frames;
  const seconds = (performance.now() - start) / 1000;
  return { target: target.name, executions: done, accepted, failures, seconds };
}

/** The error once more, with its stack. */
async function failureOf(target: FuzzTarget, input: unknown): Promise<unknown> {
  try {
    await observe(target, input);
  } catch (error) {
    return error;
  }
  return new Error("it failed the first time only");
}
