/** The machine that results were taken on. */

import { existsSync, readFileSync } from "node:fs";
import { loadavg } from "node:os";
import process from "node:process";
import { type MachineSummary, machineSummary } from "../src/runtime/system.ts";

/** A machine and runtime. */
export interface Machine extends MachineSummary {
  /** Versions of the engine and what it is built of. */
  readonly engine: Readonly<Record<string, string | undefined>>;
  /** The processor's features as Linux names them. */
  readonly flags: readonly string[] | undefined;
  /** Runnable threads, the mean of the last minute: over 1 before a run, others were at work. */
  readonly load: number;
}

/** The machine this runs on. */
export function thisMachine(): Machine {
  return {
    ...machineSummary(),
    engine: engineVersions(),
    flags: processorFlags(),
    load: loadavg()[0]!,
  };
}

function engineVersions(): Record<string, string | undefined> {
  const { deno, v8, bun, webkit } = process.versions as Record<string, string | undefined>;
  return bun === undefined ? { deno, v8 } : { bun, webkit };
}

function processorFlags(): string[] | undefined {
  const file = "/proc/cpuinfo";
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  return /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1]?.split(" ");
}

/** The middle of some numbers, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
