/** The machine that results were taken on. */

import {
  cpuCount,
  cpuModel,
  memoryBytes,
  platformName,
  runtimeName,
  runtimeVersion,
} from "../src/runtime/system.ts";

/** A machine and runtime. */
export interface Machine {
  readonly processor: string | undefined;
  readonly processors: number;
  readonly memoryBytes: number | undefined;
  readonly platform: string;
  readonly runtime: string;
}

/** The machine this runs on. */
export function thisMachine(): Machine {
  return {
    processor: cpuModel(),
    processors: cpuCount(),
    memoryBytes: memoryBytes()?.total,
    platform: platformName(),
    runtime: `${runtimeName()} ${runtimeVersion()}`,
  };
}

/** The middle of some numbers, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
