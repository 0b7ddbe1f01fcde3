/** Layers that round the same x share its rounded rows, and give the same bytes as each by itself. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { encodePlan } from "../../src/backends/wasm/encode.ts";
import { createWasmBackend, type WasmBackend } from "../../src/backends/wasm/mod.ts";
import { TAPE_OPCODE } from "../../src/backends/wasm/tape_writer.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import { linear, silu } from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan } from "../../src/plan/plan.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { int8 } from "./conformance/activation_cases.ts";
import { Random, randomValues } from "./conformance/random.ts";
import { formatOf } from "./conformance/weight_cases.ts";
import { TestWeights } from "./conformance/weights.ts";

const [M, K, N] = [9, 192, 20];

/** By what the products take: narrow runs with offsets, floats, exact rows. */
const WEIGHTS = {
  narrow: "4-bit integer, 32 coded, offset coded",
  alsoNarrow: "4-bit integer, 32 coded, offset coded",
  float: "8-bit table, tensor f32",
  row: "8-bit integer, row f32 x 1/127",
} as const;

const MODES: Readonly<Record<string, ActivationMode>> = {
  "a scale per row": int8({}),
  "a scale for all": { ...int8({ mapping: "asymmetric", levels: 255 }), granularity: "tensor" },
};

type Layers = (graph: Graph, x: Tensor, other: Tensor) => Tensor[];
type Layer = keyof typeof WEIGHTS;

function testWeights(mode: ActivationMode): TestWeights {
  const weights = new TestWeights(mode);
  const random = new Random(7);
  for (const [name, format] of Object.entries(WEIGHTS)) {
    weights.add(name, formatOf(format).make(random, N, K));
  }
  return weights;
}

function planOf(layers: Layers, weights: TestWeights): Plan {
  const graph = new Graph("layers", weights);
  const [x, other] = ["x", "other"].map((name) => silu(graph.input(name, [M, K])));
  layers(graph, x, other).forEach((output, index) => graph.output(`${index}`, output));
  return buildPlan(graph, { supports: () => true, fuse: false });
}

function layer(graph: Graph, x: Tensor, name: Layer): Tensor {
  return linear(x, graph.weight(name, [N, K]));
}

/** How often a plan's tape has an opcode. */
function countSteps(plan: Plan, opcode: number): number {
  const { tape } = encodePlan(plan, {
    arena: 0,
    stepScratch: 0,
    weights: { unit: () => 0, descriptor: () => 0 },
    matrixDescriptor: () => 0,
  });
  const words = new Int32Array(tape.length);
  tape.writeTo(words);
  return tape.starts.filter((start) => words[start] === opcode).length;
}

async function outputs(
  backend: WasmBackend,
  layers: Layers,
  weights: TestWeights,
): Promise<Float32Array[]> {
  const plan = planOf(layers, weights);
  const set = await backend.loadWeights(plan.weights, weights);
  const program = await backend.compile(plan, set);
  const random = new Random(8);
  for (const name of ["x", "other"]) {
    program.write(name, HostTensor.fromFloat32(randomValues(random, M * K, K), [M, K]));
  }
  await program.run();
  const found = Object.keys(plan.outputs).map((name) => program.read(name).toFloat32());
  program.release();
  await set.release();
  return found;
}

/** Each layer alone, then all of them in one plan. */
async function assertSame(layers: readonly Layers[], together: Layers, mode: ActivationMode) {
  const weights = testWeights(mode);
  const backend = await createWasmBackend({ threads: 2 });
  try {
    const alone: Float32Array[] = [];
    for (const one of layers) alone.push(...await outputs(backend, one, weights));
    assert.deepEqual(await outputs(backend, together, weights), alone);
  } finally {
    await backend.close();
  }
}

/** Layers over x and other in turns. */
const INTERLEAVED: readonly Layers[] = (Object.keys(WEIGHTS) as Layer[]).flatMap((name) => [
  (graph, x) => [layer(graph, x, name)],
  (graph, _, other) => [layer(graph, other, name)],
]);
const allOf = (layers: readonly Layers[]): Layers => (...operands) =>
  layers.flatMap((one) => one(...operands));

for (const [name, mode] of Object.entries(MODES)) {
  test(`layers over two x in turns round each once per kind of weight: ${name}`, async () => {
    const plan = planOf(allOf(INTERLEAVED), testWeights(mode));
    assert.equal(countSteps(plan, TAPE_OPCODE.roundRows), 6);
    await assertSame(INTERLEAVED, allOf(INTERLEAVED), mode);
  });
}

test("LLM.int8() layers over the same x mark and round it once", async () => {
  const mode: ActivationMode = { kind: "llm_int8", threshold: 1 };
  const one: Layers = (graph, x) => [layer(graph, x, "row")];
  const plan = planOf(allOf([one, one]), testWeights(mode));
  assert.equal(countSteps(plan, TAPE_OPCODE.markOutliers), 1);
  assert.equal(countSteps(plan, TAPE_OPCODE.roundRows), 1);
  await assertSame([one, one], allOf([one, one]), mode);
});

test("x that is written again is rounded again", async () => {
  const rewritten: Layers = (graph, x, other) => {
    const place = graph.allocate([M, K]);
    graph.add("copy", {}, [x], place);
    const before = layer(graph, place, "narrow");
    graph.add("copy", {}, [other], place);
    return [before, layer(graph, place, "narrow")];
  };
  const alone: Layers[] = [
    (graph, x) => [layer(graph, x, "narrow")],
    (graph, _, other) => [layer(graph, other, "narrow")],
  ];
  assert.equal(countSteps(planOf(rewritten, testWeights(int8({}))), TAPE_OPCODE.roundRows), 2);
  await assertSame(alone, rewritten, int8({}));
});
