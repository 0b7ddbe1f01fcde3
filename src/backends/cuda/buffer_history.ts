/** Who writes and reads a plan's buffers, in order: what a step reads, and who made it. */

import type { ActivationOperand, Plan } from "../../plan/plan.ts";
import { addressView, type MatrixView, matrixView } from "../operand_view.ts";

/** A step that reads a buffer. */
export interface Read {
  readonly step: number;
  readonly operand: number;
  /** Writes of the buffer before. */
  readonly writes: number;
}

interface Accesses {
  readonly writers: number[];
  readonly reads: Read[];
}

/** The accesses of all buffers. */
export class BufferHistory {
  readonly #plan: Plan;
  readonly #accesses: readonly Accesses[];

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#accesses = plan.buffers.map(() => ({ writers: [], reads: [] }));
    plan.steps.forEach(({ inputs, output }, step) => {
      inputs.forEach((input, operand) => {
        if (input?.kind !== "activation") return;
        const { reads, writers } = this.#accesses[input.buffer]!;
        reads.push({ step, operand, writes: writers.length });
      });
      this.#accesses[output.buffer]!.writers.push(step);
    });
  }

  /** The step of a buffer's write. */
  writer(buffer: number, write: number): number {
    return this.#accesses[buffer]!.writers[write]!;
  }

  /** A step's output as a matrix, from the arena's start. */
  written(step: number): MatrixView {
    return matrixOf(this.#plan, this.#plan.steps[step]!.output);
  }

  /** Who may read what a buffer's write left in a place; null where somebody outside the plan does. */
  readsAfter(buffer: number, write: number, place: MatrixView): Read[] | null {
    if (this.#plan.buffers[buffer]!.role !== "temporary") return null;
    const { writers, reads } = this.#accesses[buffer]!;
    const over = writers.findIndex((step, index) =>
      index > write && sameMatrix(this.written(step), place)
    );
    const end = over < 0 ? Infinity : over;
    return reads.filter(({ writes }) => writes > write && writes <= end);
  }
}

/** An operand as a matrix, from the arena's start; throws `plan_invalid` where it is none. */
export function matrixOf(plan: Plan, operand: ActivationOperand): MatrixView {
  return matrixView(addressView(plan, operand, 0));
}

/** Whether two matrices are the same numbers. */
export function sameMatrix(a: MatrixView, b: MatrixView): boolean {
  return a.address === b.address && a.rows === b.rows && a.columns === b.columns &&
    (a.rows === 1 || a.stride === b.stride);
}
