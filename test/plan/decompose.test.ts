/** Decomposition: only required ops are left, and what cannot be decomposed is refused. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HalftoneError } from "../../src/errors.ts";
import { embedding, linear, silu } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { OP_NAMES, OP_TABLE, type OpName } from "../../src/ops/op_table.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { randomGraph } from "./random_graph.ts";

test("a plan for a backend without fused ops holds required ops alone", () => {
  fc.assert(
    fc.property(fc.nat(1e6), fc.integer({ min: 1, max: 40 }), (seed, length) => {
      const supports = (op: OpName) => OP_TABLE[op].required;
      const plan = buildPlan(randomGraph(seed, length).capture(), { supports });
      for (const step of plan.steps) assert.ok(OP_TABLE[step.op].required, step.op);
    }),
  );
});

test("each fused op can be lacking alone", () => {
  const fused = OP_NAMES.filter((op) => !OP_TABLE[op].required);
  assert.ok(fused.length > 0);
  for (const lacking of fused) {
    const supports = (op: OpName) => op !== lacking;
    const plan = buildPlan(randomGraph(3, 40).capture(), { supports });
    assert.ok(plan.steps.every((step) => step.op !== lacking));
  }
});

test("a backend without a required op is refused", () => {
  const graph = new Graph("lookup", weights());
  graph.output("out", embedding(graph.input("ids", [2], "int32"), graph.weight("w", [8, 8])));
  const supports = (op: OpName) => op !== "gather";
  assert.throws(() => buildPlan(graph, { supports }), isUnsupported);
});

test("LLM.int8() is refused by a backend without linear, and taken by one with it", () => {
  const capture = () => {
    const graph = new Graph("int8", weights(6));
    graph.output("out", silu(linear(graph.input("x", [2, 8]), graph.weight("w", [8, 8]))));
    return graph;
  };
  const supports = (op: OpName) => op !== "linear";
  assert.throws(() => buildPlan(capture(), { supports }), isUnsupported);
  assert.equal(buildPlan(capture(), { supports: () => true }).steps.length, 1);
});

function weights(threshold?: number): TestWeights {
  const mode = threshold === undefined
    ? { kind: "float" } as const
    : { kind: "llm_int8", threshold } as const;
  const made = new TestWeights(mode);
  made.add("w", denseWeight(new Random(1), "float32", [8, 8]));
  return made;
}

function isUnsupported(error: unknown): boolean {
  return error instanceof HalftoneError && error.code === "unsupported";
}
