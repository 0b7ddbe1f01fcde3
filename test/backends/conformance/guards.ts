/** Promises of a backend beside numbers: repeatability, memory, cancelling, closing, clear errors. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Backend, Program, StoredWeight } from "../../../src/backends/backend.ts";
import { type ErrorCode, HalftoneError } from "../../../src/errors.ts";
import { linear } from "../../../src/ops/builders.ts";
import { Graph } from "../../../src/ops/graph.ts";
import { buildPlan } from "../../../src/plan/build.ts";
import type { PlanWeight } from "../../../src/plan/plan.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { compileNetwork, makeNetwork, planNetwork } from "./network.ts";
import { denseWeight, TestWeights } from "./weights.ts";
import { Random, randomValues } from "./random.ts";
import type { Subject } from "./suite.ts";

/** Registers the tests of one subject; each opens and closes its own backend. */
export function registerGuards(subject: Subject): void {
  const guard = (promise: string, check: (backend: Backend) => Promise<void>) =>
    test(`${subject.name}: ${promise}`, async () => {
      const backend = await subject.create();
      try {
        await check(backend);
      } finally {
        await backend.close();
      }
    });
  guard("repeated runs give the same bytes", repeatedRuns);
  guard("a released and recompiled program gives the same bytes", recompiled);
  guard("two programs share their weights", sharedWeights);
  guard("memory peaks where the plan says", peakAsPlanned);
  guard("200 runs take no more memory than one", noGrowth);
  guard("releasing gives all memory back", releasesAll);
  guard("an aborted signal stops a run before it starts", abortedBefore);
  guard("aborting stops a run and leaves the program usable", abortedInside);
  guard("an aborted load holds no memory", abortedLoad);
  guard("a failing weight source holds no memory", failingSource);
  guard("a weight of another shape is refused", wrongWeight);
  guard("wrong inputs and outputs are refused", wrongOperands);
  guard("an id out of range fails and leaves the program usable", wrongId);
  guard("closing while idle ends everything", closedIdle);
  guard("closing while running ends the run", closedRunning);
}

async function repeatedRuns(backend: Backend): Promise<void> {
  const { program } = await compileNetwork(backend, makeNetwork());
  await program.run();
  const first = program.read("picture").bytes;
  for (let i = 0; i < 20; i++) {
    await program.run();
    assert.deepEqual(program.read("picture").bytes, first);
  }
}

async function recompiled(backend: Backend): Promise<void> {
  const pictures: Uint8Array[] = [];
  for (let i = 0; i < 3; i++) {
    const { program, weights } = await compileNetwork(backend, makeNetwork());
    await program.run();
    pictures.push(program.read("picture").bytes);
    program.release();
    await weights.release();
  }
  assert.deepEqual(pictures[1], pictures[0]);
  assert.deepEqual(pictures[2], pictures[0]);
}

async function sharedWeights(backend: Backend): Promise<void> {
  const network = makeNetwork();
  const { plan, program, weights } = await compileNetwork(backend, network);
  const second = await backend.compile(plan, weights);
  for (const [name, tensor] of Object.entries(network.inputs)) second.write(name, tensor);
  second.write("latents", HostTensor.zeros("float32", network.inputs.latents.shape));
  await program.run();
  await second.run();
  const picture = program.read("picture").bytes;
  assert.notDeepEqual(second.read("picture").bytes, picture);
  second.release();
  await program.run();
  assert.deepEqual(program.read("picture").bytes, picture);
}

async function peakAsPlanned(backend: Backend): Promise<void> {
  const sizes = { tokens: 64, width: 256, heads: 4, blocks: 2 };
  const { plan, program } = await compileNetwork(backend, makeNetwork(sizes));
  await program.run();
  const weightBytes = backend.weightBytes?.(plan) ?? plan.weightBytes;
  const planned = weightBytes + plan.arenaBytes + backend.scratchBytes(plan);
  const { peak, weights, arena } = backend.memory();
  const message = `planned ${planned}, measured ${peak}`;
  assert.ok(Math.abs(peak - planned) <= 0.02 * planned, message);
  assertNear(weights, plan.weightBytes);
  assertNear(arena, plan.arenaBytes);
}

function assertNear(found: number, expected: number): void {
  assert.ok(Math.abs(found - expected) <= 0.02 * expected, `${found} bytes, not ${expected}`);
}

async function noGrowth(backend: Backend): Promise<void> {
  const { program } = await compileNetwork(backend, makeNetwork());
  await program.run();
  const { peak, ...held } = backend.memory();
  for (let i = 0; i < 200; i++) await program.run();
  assert.deepEqual(backend.memory(), { ...held, peak });
}

async function releasesAll(backend: Backend): Promise<void> {
  const before = heldBytes(backend);
  for (let i = 0; i < 20; i++) {
    const { program, weights } = await compileNetwork(backend, makeNetwork());
    await program.run();
    program.release();
    await weights.release();
    assert.equal(heldBytes(backend), before);
  }
}

function heldBytes(backend: Backend): number {
  const { weights, arena, scratch } = backend.memory();
  return weights + arena + scratch;
}

async function abortedBefore(backend: Backend): Promise<void> {
  const { program } = await compileNetwork(backend, makeNetwork());
  await assert.rejects(program.run({ signal: AbortSignal.abort() }), hasCode("aborted"));
  await program.run();
}

async function abortedInside(backend: Backend): Promise<void> {
  const program = await longProgram(backend);
  await program.run();
  const expected = program.read("y").bytes;
  // At once, and later: a fast machine may be done by then, but not each time.
  await assert.rejects(abortAfter(program, null), hasCode("aborted"));
  let stopped = 0;
  for (const delay of [0, 1, 2, 3]) {
    await abortAfter(program, delay).catch((error) => {
      assert.ok(hasCode("aborted")(error));
      stopped++;
    });
  }
  assert.ok(stopped > 0, "no run was stopped");
  await program.run();
  assert.deepEqual(program.read("y").bytes, expected);
}

/** A run that is aborted after some milliseconds, or right after its start. */
async function abortAfter(program: Program, delay: number | null): Promise<void> {
  const controller = new AbortController();
  const run = program.run({ signal: controller.signal });
  const abort = () => controller.abort();
  const timer = delay === null ? abort() : setTimeout(abort, delay);
  try {
    await run;
  } finally {
    clearTimeout(timer ?? undefined);
  }
}

/** A second of linear layers for plain code, tens of milliseconds for fast code. */
async function longProgram(backend: Backend) {
  const size = 256, rows = 128, steps = 80;
  const random = new Random(7);
  const weights = new TestWeights();
  weights.add("w", denseWeight(random, "float32", [size, size], { scale: 1 / 32 }));
  const graph = new Graph("long", weights);
  let x = graph.input("x", [rows, size]);
  for (let i = 0; i < steps; i++) x = linear(x, graph.weight("w", [size, size]));
  graph.output("y", x);
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const loaded = await backend.loadWeights(plan.weights, weights);
  const program = await backend.compile(plan, loaded);
  const values = randomValues(random, rows * size, size);
  program.write("x", HostTensor.fromFloat32(values, [rows, size]));
  return program;
}

async function abortedLoad(backend: Backend): Promise<void> {
  const network = makeNetwork();
  const plan = planNetwork(network, { supports: (op) => backend.supports(op) });
  const before = heldBytes(backend);
  const controller = new AbortController();
  const loading = backend.loadWeights(plan.weights, network.weights, {
    signal: controller.signal,
    onProgress: (done) => done === 3 && controller.abort(),
  });
  await assert.rejects(loading, hasCode("aborted"));
  assert.equal(heldBytes(backend), before);
}

async function failingSource(backend: Backend): Promise<void> {
  const network = makeNetwork();
  const plan = planNetwork(network, { supports: (op) => backend.supports(op) });
  const before = heldBytes(backend);
  let reads = 0;
  const source = {
    read: (weight: PlanWeight): Promise<StoredWeight> => {
      if (reads++ === 4) throw new HalftoneError("missing_tensor", "gone");
      return network.weights.read(weight);
    },
  };
  await assert.rejects(backend.loadWeights(plan.weights, source), hasCode("missing_tensor"));
  assert.equal(heldBytes(backend), before);
}

async function wrongWeight(backend: Backend): Promise<void> {
  const network = makeNetwork();
  const plan = planNetwork(network, { supports: (op) => backend.supports(op) });
  const tensor = HostTensor.zeros("float32", [1, 1]);
  const source = { read: (): Promise<StoredWeight> => Promise.resolve({ kind: "dense", tensor }) };
  await assert.rejects(backend.loadWeights(plan.weights, source), hasCode("tensor_shape_mismatch"));
}

async function wrongOperands(backend: Backend): Promise<void> {
  const { program } = await compileNetwork(backend, makeNetwork());
  const tensor = HostTensor.zeros("float32", [1, 1]);
  assert.throws(() => program.write("latents", tensor), hasCode("invalid_argument"));
  assert.throws(() => program.write("nothing", tensor), hasCode("invalid_argument"));
  assert.throws(() => program.read("nothing"), hasCode("invalid_argument"));
  const ids = HostTensor.zeros("float32", [4]);
  assert.throws(() => program.write("ids", ids), hasCode("invalid_argument"));
}

async function wrongId(backend: Backend): Promise<void> {
  const network = makeNetwork();
  const { program } = await compileNetwork(backend, network);
  await program.run();
  const expected = program.read("picture").bytes;
  for (const id of [16, -1, 2147483647]) {
    program.write("ids", HostTensor.fromInt32(Int32Array.of(0, 1, id, 2)));
    await assert.rejects(program.run(), hasCode("invalid_argument"));
  }
  program.write("ids", network.inputs.ids);
  await program.run();
  assert.deepEqual(program.read("picture").bytes, expected);
}

async function closedIdle(backend: Backend): Promise<void> {
  const network = makeNetwork();
  const { plan, program, weights } = await compileNetwork(backend, network);
  await program.run();
  await backend.close();
  await assert.rejects(program.run(), hasCode("closed"));
  await assert.rejects(backend.compile(plan, weights), hasCode("closed"));
  await assert.rejects(backend.loadWeights(plan.weights, network.weights), hasCode("closed"));
  assert.throws(() => program.read("picture"), hasCode("closed"));
  assert.throws(() => program.write("latents", network.inputs.latents), hasCode("closed"));
  assert.equal(heldBytes(backend), 0);
  await backend.close();
}

async function closedRunning(backend: Backend): Promise<void> {
  const program = await longProgram(backend);
  const run = program.run();
  const outcome = assert.rejects(run, hasCode("closed"));
  await new Promise((resolve) => setTimeout(resolve, 0));
  await backend.close();
  await outcome;
  assert.equal(heldBytes(backend), 0);
}

function hasCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HalftoneError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}
