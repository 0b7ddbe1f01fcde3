/** The most main memory that processes held. */

import { existsSync, readFileSync } from "node:fs";
import process from "node:process";

/** Most bytes a process ever held; undefined where the system does not say, or the process is gone. */
export function peakOfProcess(id: number | "self"): number | undefined {
  const file = `/proc/${id}/status`;
  const status = existsSync(file) ? readFileSync(file, "utf8") : "";
  const kibibytes = /^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
}

/** Most bytes this process ever held. */
export function peakOfThisProcess(): number {
  return peakOfProcess("self") ?? process.resourceUsage().maxRSS * 1024;
}
