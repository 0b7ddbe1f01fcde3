/** Residency: a plan cut into segments whose weights fit a slot. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HalftoneError } from "../../src/errors.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan } from "../../src/plan/plan.ts";
import { type Segment, segmentPlan } from "../../src/plan/residency.ts";
import { makeNetwork } from "../backends/conformance/network.ts";

const plan = buildPlan(
  makeNetwork({ tokens: 16, width: 64, heads: 2, blocks: 4 }).capture(),
  { supports: () => true },
);

/** The weights of a step, from the plan alone. */
function weightsOf(step: Plan["steps"][number]): number[] {
  const found = step.inputs.flatMap((input) => input?.kind === "weight" ? [input.weight] : []);
  return [...new Set(found)];
}

/** Bytes in a slot: each weight on a cache line of its own. */
function slotBytes(weights: Iterable<number>): number {
  let bytes = 0;
  for (const weight of weights) bytes += Math.ceil(plan.weights[weight].bytes / 64) * 64;
  return bytes;
}

const largestStep = Math.max(...plan.steps.map((step) => slotBytes(weightsOf(step))));

function checkSegments(segments: readonly Segment[], slot: number, resident: Set<number>): void {
  let next = 0;
  for (const segment of segments) {
    assert.equal(segment.firstStep, next, "segments follow one another");
    assert.ok(segment.lastStep >= segment.firstStep);
    const steps = plan.steps.slice(segment.firstStep, segment.lastStep + 1);
    const needed = new Set(steps.flatMap(weightsOf).filter((weight) => !resident.has(weight)));
    assert.deepEqual(new Set(segment.weights), needed);
    assert.equal(segment.weights.length, needed.size, "each weight once");
    assert.equal(segment.bytes, slotBytes(needed));
    assert.ok(segment.bytes <= slot);
    next = segment.lastStep + 1;
    if (next < plan.steps.length) {
      const more = weightsOf(plan.steps[next]).filter((weight) => !resident.has(weight));
      assert.ok(slotBytes(new Set([...needed, ...more])) > slot, "a segment ends only when full");
    }
  }
  assert.equal(next, plan.steps.length, "every step is in a segment");
}

test("segments cover a plan, each filling a slot, for any slot and any resident weights", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: largestStep, max: 2 * plan.weightBytes }),
      fc.uniqueArray(fc.integer({ min: 0, max: plan.weights.length - 1 })),
      (slot, resident) => {
        const kept = new Set(resident);
        checkSegments(segmentPlan(plan, slot, kept), slot, kept);
      },
    ),
  );
});

test("a slot as large as the largest step is enough, one byte less is not", () => {
  checkSegments(segmentPlan(plan, largestStep), largestStep, new Set());
  assert.throws(
    () => segmentPlan(plan, largestStep - 1),
    (error) => error instanceof HalftoneError && error.code === "out_of_memory",
  );
});

test("a segment that just fits is one segment, and with one byte less it is cut", () => {
  for (const { lastStep, bytes } of segmentPlan(plan, 2 * largestStep)) {
    if (bytes <= largestStep) continue;
    const segments = segmentPlan(plan, bytes - 1);
    checkSegments(segments, bytes - 1, new Set());
    assert.ok(segments.every((segment) => segment.bytes < bytes), `step ${lastStep}`);
  }
});

test("weights that all fit, or are all resident, make one segment", () => {
  const all = slotBytes(plan.weights.keys());
  assert.equal(segmentPlan(plan, all).length, 1);
  const segments = segmentPlan(plan, 0, new Set(plan.weights.keys()));
  assert.deepEqual(segments.map(({ bytes, weights }) => [bytes, weights.length]), [[0, 0]]);
});
