/** Which writes of a buffer make one matrix, and which reads are of it alone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Access, findEpochs } from "../../src/backends/cuda/buffer_epochs.ts";
import type { ActivationOperand, Plan } from "../../src/plan/plan.ts";

/** A place in a buffer of 6 x 8 numbers, rows of 8 unless said. */
type Place = readonly [
  row: number,
  column: number,
  rows: number,
  columns: number,
  stride?: number,
  step?: number,
];

/** A step that reads a place, or writes one. */
type Act = { readonly reads: Place } | { readonly writes: Place };

function operandAt(place: Place): ActivationOperand {
  const [row, column, rows, columns, stride = 8, step = 1] = place;
  const offset = 8 * row + column;
  const shape = [rows, columns], strides = [stride, step];
  return { kind: "activation", buffer: 0, dtype: "float32", offset, shape, strides };
}

const ELSEWHERE: ActivationOperand = { ...operandAt([0, 0, 1, 1]), buffer: 1 };

function planOf(acts: readonly Act[]): Plan {
  const buffer = { role: "temporary", bytes: 192, offset: 0, firstStep: 0, lastStep: 9 } as const;
  const steps = acts.map((act) => ({
    op: "copy",
    attributes: {},
    inputs: ["reads" in act ? operandAt(act.reads) : null],
    output: "writes" in act ? operandAt(act.writes) : ELSEWHERE,
  }));
  return {
    buffers: [buffer, { ...buffer, offset: 192 }],
    steps,
    arenaBytes: 384,
  } as unknown as Plan;
}

/** Sizes of the first buffer's matrices, with the steps that write and read them. */
function epochsOf(...acts: Act[]): string[] {
  const steps = (all: readonly Access[]) => all.map(({ step }) => step).join();
  return findEpochs(planOf(acts)).filter(({ buffer }) => buffer === 0).map((epoch) =>
    `${epoch.rows} x ${epoch.columns}: ${steps(epoch.writes)} > ${steps(epoch.reads)}`
  );
}

const [writes, reads] = [
  (...place: Place): Act => ({ writes: place }),
  (...place: Place): Act => ({ reads: place }),
];

test("parts above or beside each other are one matrix", () => {
  const whole = reads(0, 0, 6, 8);
  assert.deepEqual(epochsOf(writes(0, 0, 2, 8), writes(2, 0, 4, 8), whole), ["6 x 8: 0,1 > 2"]);
  assert.deepEqual(epochsOf(writes(0, 3, 6, 5), writes(0, 0, 6, 3), whole), ["6 x 8: 0,1 > 2"]);
  const quarters = [writes(0, 0, 1, 8), writes(1, 0, 5, 2), writes(1, 2, 5, 6)];
  assert.deepEqual(epochsOf(...quarters, reads(1, 2, 3, 4)), ["6 x 8: 0,1,2 > 3"]);
});

test("what is written over all of it begins anew", () => {
  const whole = [0, 0, 6, 8] as const;
  assert.deepEqual(
    epochsOf(writes(...whole), reads(...whole), writes(...whole), reads(0, 0, 3, 8)),
    ["6 x 8: 0 > 1", "6 x 8: 2 > 3"],
  );
});

test("a matrix of which something may still be read later is none", () => {
  const whole = [0, 0, 6, 8] as const;
  const part = writes(0, 0, 2, 8);
  assert.deepEqual(epochsOf(writes(...whole), reads(...whole), part, reads(...whole)), []);
  assert.deepEqual(epochsOf(writes(...whole), reads(...whole), part, reads(0, 0, 2, 8)), [
    "2 x 8: 2 > 3",
  ]);
});

test("gaps, early reads, reads beyond it and what is no matrix are none", () => {
  const whole = reads(0, 0, 6, 8);
  assert.deepEqual(epochsOf(writes(0, 0, 2, 8), writes(3, 0, 3, 8), whole), []);
  assert.deepEqual(epochsOf(writes(0, 0, 6, 4), reads(0, 0, 6, 4), writes(0, 4, 6, 4), whole), []);
  assert.deepEqual(epochsOf(writes(0, 0, 4, 8), reads(3, 0, 2, 8)), []);
  assert.deepEqual(epochsOf(writes(0, 0, 6, 8), reads(0, 0, 8, 6, 1, 8)), []);
  assert.deepEqual(epochsOf(writes(0, 0, 8, 6, 1, 8), whole), []);
  assert.deepEqual(epochsOf(writes(0, 0, 6, 4), whole), []);
});
