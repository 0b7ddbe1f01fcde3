/** Which steps read the same activations and round them alike: a backend rounds these once for all of them. */

import type { ActivationMode } from "../ops/activation_mode.ts";
import type { Plan, PlanOperand, PlanStep } from "../plan/plan.ts";

/** What a step makes of its first operand. */
export interface InputRounding<Rounding> {
  readonly rounding: Rounding;
  /** Alike for steps that make the same of the same place: JSON. */
  readonly key: unknown;
}

/** Steps whose first operands hold the same numbers and are rounded alike. */
export interface SameInput<Rounding> {
  /** Of the first step. */
  readonly x: PlanOperand;
  readonly rounding: Rounding;
  /** Writes of the buffer of x before; 0 of a weight's. */
  readonly writes: number;
  /** In their order. */
  readonly steps: readonly number[];
}

/** All that round their first operand, in the order of their first steps; `describe` gives null for the others. */
export function stepsBySameInput<Rounding>(
  plan: Plan,
  describe: (step: PlanStep, x: PlanOperand, index: number) => InputRounding<Rounding> | null,
): SameInput<Rounding>[] {
  const groups = new Map<string, SameInput<Rounding> & { readonly steps: number[] }>();
  const writes = plan.buffers.map(() => 0); // before the step at hand
  plan.steps.forEach((step, index) => {
    const [x] = step.inputs;
    const described = x ? describe(step, x, index) : null;
    if (x && described) {
      const place = x.kind === "activation" ? [x.buffer, writes[x.buffer]!] : [x.weight];
      const key = JSON.stringify([x.kind, place, described.key]);
      const { rounding } = described;
      const group = groups.get(key) ?? { x, rounding, writes: place[1] ?? 0, steps: [] };
      group.steps.push(index);
      groups.set(key, group);
    }
    writes[step.output.buffer]!++;
  });
  return [...groups.values()];
}

/** What of a mode decides the codes of x: all but what it says of weights. */
export function codesKey(mode: ActivationMode): unknown {
  return { ...mode, int16Tables: undefined };
}
