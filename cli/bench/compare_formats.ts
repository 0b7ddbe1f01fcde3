/** Runs formats one by one and compares each with float32. */

import { failureOf } from "../failure.ts";
import type { Progress } from "../progress.ts";
import { compared, type FormatFailure } from "./format_report.ts";
import {
  bitsOf,
  type FormatBenchRequest,
  type FormatRun,
  noiseOf,
  runFormat,
} from "./format_runs.ts";
import type { ComparedFormat, UnfinishedBench } from "./unfinished.ts";

/** What all formats have given. */
export interface ComparedFormats {
  readonly exact: FormatRun;
  readonly formats: readonly ComparedFormat[];
  readonly failures: readonly FormatFailure[];
}

/** What goes on beside the runs. */
export interface ComparisonState {
  readonly unfinished: Pick<UnfinishedBench, "find" | "keep">;
  readonly progress: Pick<Progress, "show" | "say">;
  /** `runFormat`; tests have one that fails. */
  readonly run?: typeof runFormat;
}

/** Runs float32, and each other format that was not yet; one that fails does not end the rest. */
export async function compareFormats(
  [float32, ...others]: readonly string[],
  request: FormatBenchRequest,
  { unfinished, progress, run = runFormat }: ComparisonState,
): Promise<ComparedFormats> {
  const total = 1 + others.length;
  const show = (done: number, name: string) =>
    progress.show("formats", done, total, `formats, ${name}`);
  show(0, float32!);
  const noise = await noiseOf(request);
  const exact = await run(float32!, request, noise);
  const formats = [{ result: compared(exact, exact), image: exact.image }];
  const failures: FormatFailure[] = [];
  const compare = async (name: string): Promise<ComparedFormat> => {
    const found = await run(name, request, noise);
    const format = { result: compared(found, exact), image: found.image };
    await unfinished.keep(name, format);
    return format;
  };
  for (const [index, name] of others.entries()) {
    show(1 + index, name);
    try {
      formats.push(await unfinished.find(name) ?? await compare(name));
    } catch (error) {
      request.signal?.throwIfAborted();
      const failure = failureOf(error).line;
      progress.say(`${name}: ${failure}`);
      failures.push({ name, bitsPerWeight: bitsOf(name), failure });
    }
  }
  return { exact, formats, failures };
}
