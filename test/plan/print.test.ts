/** A plan's text and hash: equal for equal plans, different for different ones. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { linear } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan } from "../../src/plan/plan.ts";
import { planText } from "../../src/plan/print.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { makeNetwork, type NetworkSizes, SMALL } from "../backends/conformance/network.ts";
import { FORMATS } from "../backends/conformance/formats.ts";
import { Random } from "../backends/conformance/random.ts";
import { TestWeights } from "../backends/conformance/weights.ts";

const everything = { supports: () => true };

function networkPlan(sizes: NetworkSizes = SMALL, seed = 1): Plan {
  return buildPlan(makeNetwork(sizes, seed).capture(), everything);
}

test("two captures of one model give the same text and hash", () => {
  const [a, b] = [networkPlan(), networkPlan()];
  assert.equal(planText(a), planText(b));
  assert.equal(a.hash, b.hash);
});

test("the hash is the start of the SHA-256 of the text", async () => {
  const plan = networkPlan();
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(planText(plan)));
  const digits = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0"));
  assert.equal(plan.hash, digits.join("").slice(0, 16));
});

test("the values of weights do not change the hash, nor do those of inputs", () => {
  // The codes' table is part of the layout: it differs with the seed, so compare dense weights.
  const dense = (seed: number) => singleLinear("bfloat16", [4, 8], seed).hash;
  assert.equal(dense(1), dense(2));
});

test("sizes, formats, names, attributes and constants change the hash", () => {
  const hashes = [
    networkPlan().hash,
    networkPlan({ ...SMALL, tokens: 16 }).hash,
    networkPlan({ ...SMALL, blocks: 1 }).hash,
    networkPlan({ ...SMALL, heads: 4 }).hash,
    singleLinear("bfloat16", [4, 8], 1).hash,
    singleLinear("float16", [4, 8], 1).hash,
    singleLinear("3-bit integer, 32 f16", [4, 8], 1).hash,
    singleLinear("4-bit integer, 32 f16", [4, 8], 1).hash,
    singleLinear("4-bit integer, row bf16", [4, 8], 1).hash,
    singleLinear("bfloat16", [5, 8], 1).hash,
    singleLinear("bfloat16", [4, 8], 1, "other").hash,
    constantPlan(1).hash,
    constantPlan(2).hash,
  ];
  assert.equal(new Set(hashes).size, hashes.length);
});

test("the text has one line for each buffer, input, weight, step and output", () => {
  const plan = networkPlan();
  const lines = planText(plan).trimEnd().split("\n");
  const { buffers, inputs, constants, weights, steps, outputs } = plan;
  const expected = 1 + buffers.length + Object.keys(inputs).length + constants.length +
    weights.length + steps.length + Object.keys(outputs).length;
  assert.equal(lines.length, expected);
  for (const weight of weights) {
    assert.ok(lines.some((line) => line.startsWith(`weight ${weight.name} `)), weight.name);
  }
});

function singleLinear(
  format: string,
  shape: readonly [number, number],
  seed: number,
  name = "linear",
): Plan {
  const weights = new TestWeights();
  const made = FORMATS.find((candidate) => candidate.name === format)!;
  weights.add("w", made.make(new Random(seed), ...shape));
  const graph = new Graph(name, weights);
  graph.output("y", linear(graph.input("x", [2, shape[1]]), graph.weight("w", shape)));
  return buildPlan(graph, everything);
}

function constantPlan(value: number): Plan {
  const graph = new Graph("constant", new TestWeights());
  const constant = graph.constant(HostTensor.fromFloat32(Float32Array.of(value, 2), [1, 2]));
  graph.output("y", graph.add("copy", {}, [constant], graph.allocate([1, 2])));
  return buildPlan(graph, everything);
}
