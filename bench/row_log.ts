/** Rows of a benchmark in their order, kept in a file that is whole after each of them. */

import { writeAtomic } from "../src/runtime/atomic_file.ts";

/** A row that can be measured. */
export interface Row {
  /** What is measured, such as "step". */
  readonly kind: string;
  readonly name: string;
  /** Measures it; `warn` is told of what makes it slower than it should be. */
  measure(warn: (message: string) => void): Promise<object>;
}

/** What was found of a row, or why nothing was. */
export type Outcome = { readonly failed?: string; readonly seconds?: { readonly step?: number } };

const CUT_OFF = "not measured: the run was cut off";

/** What is known of all rows so far; those to come are there with the reason why they would be missing. */
export class RowLog {
  readonly #head: object;
  readonly #path: string | null;
  readonly #rows: (Pick<Row, "kind" | "name"> & Outcome)[];

  /** `head` comes before the rows; without a path nothing is written. */
  constructor(head: object, rows: readonly Row[], path: string | null) {
    this.#head = head;
    this.#path = path;
    this.#rows = rows.map(({ kind, name }) => ({ kind, name, failed: CUT_OFF }));
  }

  /** Writes down a row, aside and renamed. */
  async record(index: number, outcome: Outcome): Promise<void> {
    const { kind, name } = this.#rows[index]!;
    this.#rows[index] = { kind, name, ...outcome };
    if (this.#path !== null) await writeAtomic(this.#path, this.text());
  }

  /** All of it as JSON; a step's time is also told as a multiple of the first step's. */
  text(): string {
    const first = this.#rows.find(({ kind }) => kind === "step")?.seconds?.step;
    const rows = this.#rows.map((row) => {
      const step = row.seconds?.step;
      const isRelated = row.kind === "step" && first !== undefined && step !== undefined;
      return isRelated ? { ...row, timeOfFirst: step / first } : row;
    });
    return `${JSON.stringify({ ...this.#head, rows }, null, 2)}\n`;
  }
}
