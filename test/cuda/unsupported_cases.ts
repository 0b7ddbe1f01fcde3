/** Conformance cases that the cuda backend lacks. */

import type { ConformanceCase } from "../backends/conformance/cases.ts";

/** Why a case is skipped, or null. */
export function lackedByCuda({ budget }: ConformanceCase): string | null {
  return budget.startsWith("attention/int8") ? "cuda refuses attention in int8" : null;
}
