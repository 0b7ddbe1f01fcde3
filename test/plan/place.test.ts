/** Placement: who may share bytes, that nothing lies outside its buffer, and how tight the arena is. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { add, concat, linear, silu } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { OP_TABLE } from "../../src/ops/op_table.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { ActivationOperand, Plan, PlanBuffer, PlanStep } from "../../src/plan/plan.ts";
import { makeNetwork } from "../backends/conformance/network.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { randomGraph } from "./random_graph.ts";
import { runPlan } from "./run_plan.ts";

const fusedOptions = { supports: () => true };
const decomposed = { supports: (op: keyof typeof OP_TABLE) => OP_TABLE[op].required };

/** The input that an op may write exactly over, from the op table's text. */
const OVERWRITABLE: Partial<Record<PlanStep["op"], number>> = {
  unary: 0,
  binary: 0,
  norm: 0,
  headNormRope: 0,
  linear: 4,
  conv2d: 3,
};

/** The elements [first, last] of the arena that a view may touch. */
function extent(plan: Plan, operand: ActivationOperand): [number, number] {
  const first = plan.buffers[operand.buffer].offset / 4 + operand.offset;
  const reach = operand.shape.map((size, axis) => (size - 1) * operand.strides[axis]);
  return [first, reach.reduce((sum, length) => sum + length, first)];
}

function checkPlan(plan: Plan): void {
  checkBuffers(plan);
  plan.steps.forEach((step, index) => checkStep(plan, step, index));
  checkSharing(plan);
}

function checkBuffers(plan: Plan): void {
  for (const { bytes, offset } of plan.buffers) {
    assert.equal(bytes % 64, 0);
    assert.equal(offset % 64, 0);
    assert.ok(offset >= 0 && bytes > 0 && offset + bytes <= plan.arenaBytes);
  }
  assert.equal(plan.arenaBytes, Math.max(...plan.buffers.map((b) => b.offset + b.bytes)));
}

/** Every view within its buffer, in its life; an output apart from all inputs but the allowed one. */
function checkStep(plan: Plan, step: PlanStep, index: number): void {
  const inputs = step.inputs.map((input) => input?.kind === "activation" ? input : null);
  for (const operand of [...inputs, step.output]) {
    if (!operand) continue;
    const { offset, bytes, firstStep, lastStep } = plan.buffers[operand.buffer];
    const [first, last] = extent(plan, operand);
    assert.ok(first * 4 >= offset && (last + 1) * 4 <= offset + bytes, `step ${index} overruns`);
    assert.ok(firstStep <= index && index <= lastStep, `step ${index} outlives a buffer`);
  }
  inputs.forEach((input, position) => {
    if (!input || !mayMeet(plan, input, step.output)) return;
    assert.equal(position, OVERWRITABLE[step.op], `step ${index} (${step.op}) overlaps an input`);
    assert.deepEqual(extent(plan, input), extent(plan, step.output));
  });
}

/** Whether two views may share an element; exact for rows of one buffer with equal strides. */
function mayMeet(plan: Plan, a: ActivationOperand, b: ActivationOperand): boolean {
  const [aFirst, aLast] = extent(plan, a), [bFirst, bLast] = extent(plan, b);
  if (aLast < bFirst || bLast < aFirst) return false;
  const elements = new Set(elementsOf(plan, a));
  return elementsOf(plan, b).some((element) => elements.has(element));
}

function elementsOf(plan: Plan, operand: ActivationOperand): number[] {
  const start = plan.buffers[operand.buffer].offset / 4 + operand.offset;
  return operand.shape.reduce(
    (elements, size, axis) =>
      elements.flatMap((element) =>
        Array.from({ length: size }, (_, i) => element + i * operand.strides[axis])
      ),
    [start],
  );
}

/** Buffers that share bytes must not be in use at once, by the steps themselves. */
function checkSharing(plan: Plan): void {
  const lives = plan.buffers.map((buffer, index) => lifeOf(plan, buffer, index));
  for (const [i, a] of plan.buffers.entries()) {
    for (const [j, b] of plan.buffers.entries()) {
      if (j <= i || a.offset >= b.offset + b.bytes || b.offset >= a.offset + a.bytes) continue;
      const apart = lives[i].last < lives[j].first || lives[j].last < lives[i].first;
      assert.ok(apart, `buffers ${i} and ${j} share bytes while both live`);
    }
  }
}

function lifeOf(plan: Plan, buffer: PlanBuffer, index: number): { first: number; last: number } {
  if (buffer.role !== "temporary") return { first: -Infinity, last: Infinity };
  const steps = plan.steps.flatMap((step, i) => {
    const touched = [...step.inputs, step.output]
      .some((operand) => operand?.kind === "activation" && operand.buffer === index);
    return touched ? [i] : [];
  });
  return { first: Math.min(...steps), last: Math.max(...steps) };
}

/** The same plan with every buffer in a place of its own. */
function spread(plan: Plan): Plan {
  let offset = 0;
  const buffers = plan.buffers.map((buffer) => {
    const placed = { ...buffer, offset };
    offset += buffer.bytes;
    return placed;
  });
  return { ...plan, buffers, arenaBytes: offset };
}

/** The most bytes of buffers in use during one step: no placement can need less. */
function leastArena(plan: Plan): number {
  const lives = plan.buffers.map((buffer, index) => lifeOf(plan, buffer, index));
  return Math.max(
    ...plan.steps.map((_, step) =>
      plan.buffers.reduce((sum, buffer, index) => {
        const isLive = lives[index].first <= step && step <= lives[index].last;
        return sum + (isLive ? buffer.bytes : 0);
      }, 0)
    ),
  );
}

test("any plan keeps live buffers apart and every view inside its buffer", () => {
  fc.assert(
    fc.property(fc.nat(1e6), fc.integer({ min: 1, max: 40 }), fc.boolean(), (seed, length, f) => {
      checkPlan(buildPlan(randomGraph(seed, length).capture(), f ? fusedOptions : decomposed));
    }),
    { numRuns: 150 },
  );
});

test("any plan computes the same bytes with and without shared memory", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(1e6),
      fc.integer({ min: 1, max: 40 }),
      fc.boolean(),
      async (seed, length, f) => {
        const { capture, weights, inputs } = randomGraph(seed, length);
        const plan = buildPlan(capture(), f ? fusedOptions : decomposed);
        const shared = await runPlan(plan, weights, inputs);
        const apart = await runPlan(spread(plan), weights, inputs);
        assert.deepEqual(shared, apart);
      },
    ),
    { numRuns: 150 },
  );
});

test("a small network keeps live buffers apart, fused and decomposed", () => {
  checkPlan(buildPlan(makeNetwork().capture(), fusedOptions));
  checkPlan(buildPlan(makeNetwork().capture(), decomposed));
});

test("the arena of a small network is within a tenth of the least possible", () => {
  const sizes = { tokens: 64, width: 64, heads: 2, blocks: 4 };
  for (const options of [fusedOptions, decomposed]) {
    const plan = buildPlan(makeNetwork(sizes).capture(), options);
    const least = leastArena(plan);
    assert.ok(plan.arenaBytes <= 1.1 * least, `${plan.arenaBytes} bytes, at least ${least}`);
  }
});

test("depth costs no arena: eight blocks need no more than two", () => {
  const sizes = { tokens: 16, width: 32, heads: 2 };
  const [two, eight] = [2, 8].map((blocks) =>
    buildPlan(makeNetwork({ ...sizes, blocks }).capture(), fusedOptions)
  );
  assert.equal(eight.arenaBytes, two.arenaBytes);
});

function chain(): Graph {
  const weights = new TestWeights();
  weights.add("w", denseWeight(new Random(3), "float32", [16, 16]));
  return new Graph("chain", weights);
}

test("an elementwise op writes over an input that dies", () => {
  const graph = chain();
  const x = graph.input("x", [4, 16]);
  const y = linear(x, graph.weight("w", [16, 16]));
  graph.output("out", linear(silu(add(y, x)), graph.weight("w", [16, 16])));
  const plan = buildPlan(graph, { ...fusedOptions, fuse: false });
  assert.equal(plan.buffers.filter(({ role }) => role === "temporary").length, 1);
});

test("an input of the plan is never written over", () => {
  const graph = chain();
  const x = graph.input("x", [4, 16]);
  graph.output("out", silu(silu(x)));
  const plan = buildPlan(graph, { ...fusedOptions, fuse: false });
  for (const step of plan.steps) assert.notEqual(step.output.buffer, plan.inputs.x.buffer);
});

test("an output of the plan keeps its bytes to the end", () => {
  const graph = chain();
  const early = silu(graph.input("x", [4, 16]));
  graph.output("early", early);
  const w = graph.weight("w", [16, 16]);
  graph.output("late", linear(silu(linear(silu(early), w)), w));
  const plan = buildPlan(graph, { ...fusedOptions, fuse: false });
  checkPlan(plan);
  const writers = plan.steps.filter(({ output }) => output.buffer === plan.outputs.early.buffer);
  assert.equal(writers.length, 1);
});

test("an operand that is read again later is not written over", () => {
  const graph = chain();
  const x = graph.input("x", [4, 16]);
  const y = silu(x);
  const z = silu(y);
  graph.output("out", concat([add(z, y), y], 0));
  checkPlan(buildPlan(graph, { ...fusedOptions, fuse: false }));
});
