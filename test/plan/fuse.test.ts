/** Fusion: what it joins, what it must leave alone, and that results stay the same. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  add,
  affine,
  concat,
  conv2d,
  gelu,
  groupNorm,
  layerNorm,
  linear,
  modulate,
  multiply,
  silu,
  upsampleNearest2x,
} from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan } from "../../src/plan/plan.ts";
import { OP_TABLE } from "../../src/ops/op_table.ts";
import { compare } from "../backends/conformance/cases.ts";
import { makeNetwork } from "../backends/conformance/network.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { randomGraph } from "./random_graph.ts";
import { runPlan } from "./run_plan.ts";

const everything = { supports: () => true };
const required = { supports: (op: keyof typeof OP_TABLE) => OP_TABLE[op].required };

function weights(): TestWeights {
  const random = new Random(5);
  const made = new TestWeights();
  made.add("w", denseWeight(random, "float32", [8, 8]));
  made.add("b", denseWeight(random, "float32", [8]));
  made.add("conv", denseWeight(random, "float32", [8, 8, 3, 3]));
  return made;
}

/** The fused plan of a little graph over x [4, 8], y [4, 8] and row [1, 8]. */
function fused(build: (inputs: Record<"x" | "y" | "row", Tensor>, graph: Graph) => Tensor): Plan {
  const graph = new Graph("little", weights());
  const x = graph.input("x", [4, 8]), y = graph.input("y", [4, 8]);
  const row = graph.input("row", [1, 8]);
  graph.output("out", build({ x, y, row }, graph));
  return buildPlan(graph, everything);
}

function project(graph: Graph, x: Tensor): Tensor {
  return linear(x, graph.weight("w", [8, 8]), graph.weight("b", [8]));
}

function ops(plan: Plan): string[] {
  return plan.steps.map((step) => step.op);
}

/** Which operands a step has, as a string of 1 and 0. */
function operands(plan: Plan, step: number): string {
  return plan.steps[step].inputs.map((input) => input ? "1" : "0").join("");
}

test("an activation joins its linear layer", () => {
  const plan = fused(({ x }, graph) => gelu(project(graph, x)));
  assert.deepEqual(ops(plan), ["linear"]);
  assert.equal((plan.steps[0].attributes as { activation: string }).activation, "gelu_erf");
});

test("activation, gate and residual join one linear layer", () => {
  const plan = fused(({ x, y, row }, graph) => add(y, multiply(row, silu(project(graph, x)))));
  assert.deepEqual(ops(plan), ["linear"]);
  assert.equal(operands(plan, 0), "11111");
});

test("a residual on either side joins its linear layer", () => {
  for (const order of [0, 1]) {
    const plan = fused(({ x, y }, graph) => {
      const projected = project(graph, x);
      return order === 0 ? add(projected, y) : add(y, projected);
    });
    assert.deepEqual(ops(plan), ["linear"]);
  }
});

test("an activation after a gate or a residual stays apart", () => {
  const gated = fused(({ x, row }, graph) => silu(multiply(row, project(graph, x))));
  assert.deepEqual(ops(gated), ["linear", "unary"]);
  const added = fused(({ x, y }, graph) => silu(add(y, project(graph, x))));
  assert.deepEqual(ops(added), ["linear", "unary"]);
});

test("of two activations only the first joins its linear layer", () => {
  const plan = fused(({ x }, graph) => silu(gelu(project(graph, x))));
  assert.deepEqual(ops(plan), ["linear", "unary"]);
  assert.equal((plan.steps[0].attributes as { activation: string }).activation, "gelu_erf");
});

test("of two gates only the first joins its linear layer", () => {
  const plan = fused(({ x, row }, graph) => multiply(row, multiply(row, project(graph, x))));
  assert.deepEqual(ops(plan), ["linear", "binary"]);
});

test("of two residuals only the first joins its linear layer", () => {
  const plan = fused(({ x, y }, graph) => add(x, add(y, project(graph, x))));
  assert.deepEqual(ops(plan), ["linear", "binary"]);
});

test("an activation stays apart from a linear layer captured with a gate or a residual", () => {
  for (const operand of [3, 4]) {
    const plan = fused(({ x, y }, graph) => {
      const inputs = [x, graph.weight("w", [8, 8]), null, null, null].with(operand, y);
      const attributes = { activation: "identity", activations: { kind: "float" } } as const;
      return silu(graph.add("linear", attributes, inputs, graph.allocate([4, 8])));
    });
    assert.deepEqual(ops(plan), ["linear", "unary"]);
  }
});

test("a gate after a residual stays apart", () => {
  const plan = fused(({ x, y, row }, graph) => multiply(row, add(y, project(graph, x))));
  assert.deepEqual(ops(plan), ["linear", "binary"]);
});

test("a result that is read twice is not fused away", () => {
  const plan = fused(({ x }, graph) => {
    const projected = project(graph, x);
    return multiply(projected, silu(projected));
  });
  assert.deepEqual(ops(plan), ["linear", "unary", "binary"]);
});

test("a result that is an output is not fused away", () => {
  const plan = fused(({ x }, graph) => {
    const projected = project(graph, x);
    graph.output("projected", projected);
    return silu(projected);
  });
  assert.deepEqual(ops(plan), ["linear", "unary"]);
});

test("modulation joins its norm", () => {
  const plan = fused(({ x, row }) => modulate(layerNorm(x, { epsilon: 1e-6 }), row, row));
  assert.deepEqual(ops(plan), ["norm"]);
  assert.equal(operands(plan, 0), "10011");
});

test("of two modulations only the first joins its norm", () => {
  const plan = fused(({ x, row }) =>
    modulate(modulate(layerNorm(x, { epsilon: 1e-6 }), row, row), row, row)
  );
  assert.equal(ops(plan)[0], "norm");
  assert.equal(ops(plan).length, 4);
});

test("a product with anything but 1 + scale is no modulation", () => {
  for (const [multiplier, addend] of [[2, 1], [1, 0], [1, 2]]) {
    const plan = fused(({ x, row }) =>
      add(multiply(layerNorm(x, { epsilon: 1e-6 }), affine(row, multiplier, addend)), row)
    );
    assert.equal(ops(plan).length, 4);
  }
});

test("upsampling, norm activation and residual join their convolution", () => {
  const graph = new Graph("picture", weights());
  const x = graph.input("x", [4, 6, 8]), y = graph.input("y", [8, 12, 8]);
  const norm = { groups: 2, epsilon: 1e-6, weight: graph.weight("b", [8]) };
  const normed = silu(groupNorm(x, { ...norm, bias: graph.weight("b", [8]) }));
  const weight = graph.weight("conv", [8, 8, 3, 3], "convolution");
  graph.output(
    "out",
    add(y, conv2d(upsampleNearest2x(normed), weight, undefined, { kernel: 3, padding: 1 })),
  );
  const plan = buildPlan(graph, everything);
  assert.deepEqual(ops(plan), ["norm", "conv2d"]);
  assert.equal((plan.steps[1].attributes as { upsample: number }).upsample, 2);
});

test("the parts of a concatenation are written in place", () => {
  const plan = fused(({ x, y }, graph) => concat([project(graph, x), silu(y)], 1));
  assert.deepEqual(ops(plan), ["linear", "unary"]);
  const [left, right] = plan.steps.map((step) => step.output);
  assert.equal(left.buffer, right.buffer);
  assert.deepEqual([left.offset, right.offset], [0, 8]);
});

test("ops whose results nobody reads are dropped", () => {
  const plan = fused(({ x, y }, graph) => {
    project(graph, silu(x));
    return silu(y);
  });
  assert.deepEqual(ops(plan), ["unary"]);
  assert.equal(plan.weights.length, 0);
});

test("a small network computes the same fused, unfused and decomposed", async () => {
  const network = makeNetwork();
  const outputs = [];
  for (const options of [{ ...everything, fuse: false }, everything, required]) {
    const plan = buildPlan(network.capture(), options);
    outputs.push(await runPlan(plan, network.weights, network.inputs));
  }
  for (const found of outputs.slice(1)) {
    for (const [name, expected] of Object.entries(outputs[0])) {
      const { nmse } = compare(found[name].toFloat32(), expected.toFloat32());
      assert.ok(nmse < 1e-10, `${name}: NMSE ${nmse}`);
    }
  }
});

test("a fused block is nine steps, and its embedding, concatenation and decoder four", () => {
  const network = makeNetwork();
  const unfused = buildPlan(network.capture(), { ...everything, fuse: false });
  const plan = buildPlan(network.capture(), everything);
  assert.equal(plan.steps.length, 2 * 9 + 4);
  assert.ok(plan.steps.length < unfused.steps.length);
  assert.ok(plan.arenaBytes <= unfused.arenaBytes);
});

/**
 * What a random graph's tensors are like: two that are equal but for rounding may be subtracted (the example
 * below), and then the error stands against nothing.
 */
const MAGNITUDE = 1;

test("any graph computes the same fused, unfused and decomposed", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(1e6), fc.integer({ min: 1, max: 30 }), async (seed, length) => {
      const graph = randomGraph(seed, length);
      const outputs = [];
      for (const options of [{ ...everything, fuse: false }, everything, required]) {
        const plan = buildPlan(graph.capture(), options);
        outputs.push(await runPlan(plan, graph.weights, graph.inputs));
      }
      for (const found of outputs.slice(1)) {
        for (const [name, expected] of Object.entries(outputs[0])) {
          const { maxAbs, nonFinite } = compare(
            found[name].toFloat32(),
            expected.toFloat32(),
            MAGNITUDE,
          );
          assert.equal(nonFinite, 0);
          assert.ok(maxAbs < 1e-4, `${name}: largest error ${maxAbs}`);
        }
      }
    }),
    { numRuns: 150, examples: [[5966, 26]] },
  );
});
