/** Results of the suite as they lie in a folder. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Machine } from "../machine.ts";
import type { Comparison, Measured, Ratio } from "./measure.ts";
import type { Figure, SectionResult } from "./section.ts";

/** A section's result and where it was taken. */
export interface StoredResult extends SectionResult {
  readonly machine: Machine;
}

/** The file of a section's result under a runtime. */
export function resultFile(section: string, runtime: string): string {
  return `${section.replaceAll("-", "_")}_${runtime}.json`;
}

/** The results of a folder; a section that was not run there is undefined. */
export class Results {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  section(section: string, runtime: string): StoredResult | undefined {
    const file = join(this.#folder, resultFile(section, runtime));
    return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
  }

  comparison(section: string, runtime: string, name: string): Comparison | undefined {
    return this.section(section, runtime)?.comparisons?.find((one) => one.name === name);
  }

  contender(
    section: string,
    runtime: string,
    comparison: string,
    name: string,
  ): Measured | undefined {
    return this.comparison(section, runtime, comparison)?.contenders
      .find((one) => one.name === name);
  }

  /** A section's only ratios, of some subjects against some peers (all when not named). */
  ratios(
    section: string,
    runtime: string,
    comparison: string,
    which: { subjects?: readonly string[]; peers?: readonly string[] } = {},
  ): Ratio[] {
    const { subjects, peers } = which;
    return (this.comparison(section, runtime, comparison)?.ratios ?? []).filter((ratio) =>
      (subjects?.includes(ratio.subject) ?? true) && (peers?.includes(ratio.peer) ?? true)
    );
  }

  figure(section: string, runtime: string, name: string): Figure | undefined {
    return this.section(section, runtime)?.figures?.find((one) => one.name === name);
  }
}
