/** cuDNN missing, old, failing or wrong, on its stand-in: a warning and our own kernels, or a clear error. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend, type CudaBackendOptions } from "../../src/backends/cuda/mod.ts";
import type { Backend } from "../../src/backends/backend.ts";
import { Cudnn } from "../../src/backends/cuda/cudnn.ts";
import { HalftoneError } from "../../src/errors.ts";
import { attention, conv2d } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { compare } from "../backends/conformance/cases.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { ERROR_BUDGETS } from "../backends/error_budgets.ts";
import { attentionProblem, convolutionProblem, UNTIMED } from "./dnn_problems.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

type Settings = Parameters<StandIn["set"]>[0];

function registerAll(standIn: StandIn): void {
  /** A backend in bfloat16 under settings of the stand-in, and what it warned of. */
  async function open(settings: Settings, options: Partial<CudaBackendOptions> = {}) {
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    standIn.set(settings);
    const precision = { matmulPrecision: "bfloat16", onWarning } as const;
    const backend = await createCudaBackend({ ...standIn.libraries, ...precision, ...options });
    return { backend, warnings };
  }

  /** The backend computes without cuDNN, near what it does with it; closes it. */
  async function assertOwn(backend: Backend): Promise<void> {
    const before = standIn.count("operations");
    const { mixed, picture } = await compute(backend);
    assert.equal(standIn.count("operations"), before);
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
    const { backend: usual } = await open({});
    const expected = await compute(usual);
    await usual.close();
    assertNear(mixed, expected.mixed);
    assertNear(picture, expected.picture);
  }

  test("attention and convolutions are computed by cuDNN, each kind asked for once", async () => {
    const { backend, warnings } = await open({});
    assert.deepEqual(warnings, []);
    assert.match(backend.description, /, cuDNN 9\.20\.0\)$/);
    const before = standIn.count("operations");
    const first = await compute(backend);
    const objects = standIn.count("objects");
    // A run, and one before the capture.
    assert.equal(standIn.count("operations") - before, 4);
    assert.deepEqual(await compute(backend), first);
    assert.equal(standIn.count("operations") - before, 6);
    assert.equal(standIn.count("objects"), objects);
    await backend.close();
    standIn.assertNothingHeld();
  });

  test("in float32 only convolutions are cuDNN's", async () => {
    const { backend } = await open({}, { matmulPrecision: "float32" });
    const before = standIn.count("operations");
    await compute(backend);
    assert.equal(standIn.count("operations") - before, 2);
    await backend.close();
    standIn.assertNothingHeld();
  });

  const without: readonly [name: string, Settings, Partial<CudaBackendOptions>, RegExp][] = [
    ["is missing", {}, { cudnnLibrary: "libhalftone_missing.so.9" }, /libhalftone_missing\.so\.9/],
    ["is too old", { cudnnVersion: 8907 }, {}, /too old.*"8\.9\.7".*9\.0\.0 or newer/],
    [
      "does not start",
      { failCudnnStart: 1001 },
      {},
      /Cannot start cuDNN.*CUDNN_STATUS_NOT_INITIALIZED/,
    ],
    [
      "fails in its first call",
      { failCudnn: 1 },
      {},
      /Cannot prepare .*CUDNN_STATUS_INTERNAL_ERROR/,
    ],
    ["calculates wrongly", { miscalculateOperations: 1 }, {}, /the device gets attention wrong/],
  ];
  for (const [name, settings, options, expected] of without) {
    test(`where cuDNN ${name}, a warning says so and our own kernels compute`, async () => {
      const { backend, warnings } = await open(settings, options);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, /^Without cuDNN attention .*slower kernels.*nvidia-cudnn/);
      assert.match(warnings[0]!, expected);
      assert.match(backend.description, /, no cuDNN\)$/);
      await assertOwn(backend);
    });
  }

  test("a cuDNN without attention still makes convolutions, and a warning says so", async () => {
    const { backend, warnings } = await open({ cudnnVersion: 90800 });
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /^cuDNN 9\.8\.0 has no attention.*slower kernel.*9\.13\.1 or newer/);
    const before = standIn.count("operations");
    await compute(backend);
    assert.equal(standIn.count("operations") - before, 2);
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
  });

  test("where cuDNN's attention does not compile, a warning says so", async () => {
    const { backend, warnings } = await open({ failCompiler: 1 });
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0]!,
      /^cuDNN makes no attention here.*CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED.*nvidia-cuda-nvrtc/,
    );
    const before = standIn.count("operations");
    await compute(backend);
    assert.equal(standIn.count("operations") - before, 2);
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
  });

  test("what cuDNN has no engine for our own kernels compute", async () => {
    const { backend, warnings } = await open({ refuseOperations: 1 });
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /^cuDNN makes no attention here.*\(no engine\)/);
    await assertOwn(backend);
  });

  /** Sets the k-th call from now to fail, for every k until none does; the functions that failed. */
  async function failEach(run: () => unknown, doing: RegExp): Promise<Set<unknown>> {
    const named = new Set<unknown>();
    for (let k = 1;; k++) {
      standIn.set({ failCudnn: k });
      const error = await Promise.resolve().then(run).then(() => null, (reason: unknown) => reason);
      standIn.reset();
      if (error === null) return named;
      assert.ok(error instanceof HalftoneError, String(error));
      assert.equal(error.code, "backend_failed");
      assert.match(error.message, doing);
      assert.match(error.message, /CUDNN_STATUS_/);
      named.add(error.detail.field);
    }
  }

  const problems = {
    "attention of 2 heads of 16": ATTENTION,
    "a convolution of \\[8, 8, 4\\]": CONVOLUTION,
  };
  for (const [what, problem] of Object.entries(problems)) {
    test(`every call that prepares ${problem.kind} may fail: an error that names it, nothing stays`, async () => {
      const run = () => {
        const cudnn = Cudnn.open([standIn.library], UNTIMED);
        assert.ok(typeof cudnn !== "string");
        try {
          assert.ok(cudnn.prepare(problem));
        } finally {
          cudnn.close();
          assert.equal(standIn.count("objects"), 0);
        }
      };
      const named = await failEach(run, new RegExp(`Cannot prepare ${what}`));
      assert.deepEqual([...named].sort(), [
        "cudnnBackendCreateDescriptor",
        "cudnnBackendFinalize",
        "cudnnBackendGetAttribute",
        "cudnnBackendSetAttribute",
      ]);
    });
  }

  test("every call that runs may fail: an error that names it, and the backend goes on", async () => {
    const { backend } = await open({});
    const first = await compute(backend);
    const named = await failEach(() => compute(backend), /Cannot run (attention|a convolution)/);
    assert.deepEqual([...named].sort(), [
      "cudnnBackendCreateDescriptor",
      "cudnnBackendExecute",
      "cudnnBackendFinalize",
      "cudnnBackendSetAttribute",
    ]);
    assert.deepEqual(await compute(backend), first);
    await backend.close();
    standIn.assertNothingHeld();
  });
}

const ATTENTION = attentionProblem({ heads: 2, size: 16, queries: 10, keys: 12 }, "bfloat16");
const CONVOLUTION = convolutionProblem([8, 8], [4, 6]);

/** Attention of 10 queries over 12 keys, and a convolution of 8x8 pixels. */
async function compute(backend: Backend): Promise<{ mixed: Float32Array; picture: Float32Array }> {
  const random = new Random(5);
  const weights = new TestWeights();
  weights.add("w", denseWeight(random, "bfloat16", [6, 4, 3, 3]));
  const graph = new Graph("deep", weights);
  const shapes = { q: [10, 32], k: [12, 32], v: [12, 32], x: [8, 8, 4] };
  const [q, k, v, x] = Object.entries(shapes).map(([name, shape]) => graph.input(name, shape));
  graph.output("mixed", attention(q!, k!, v!, { heads: 2, scale: 0.25 }));
  const w = graph.weight("w", [6, 4, 3, 3], "convolution");
  graph.output("picture", conv2d(x!, w, undefined, { kernel: 3, padding: 1 }));
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const loaded = await backend.loadWeights(plan.weights, weights);
  try {
    const program = await backend.compile(plan, loaded);
    for (const [name, shape] of Object.entries(shapes)) {
      const length = shape.reduce((a, b) => a * b, 1);
      const values = Float32Array.from({ length }, () => random.normal());
      program.write(name, HostTensor.fromFloat32(values, shape));
    }
    await program.run();
    const [mixed, picture] = ["mixed", "picture"].map((name) => program.read(name).toFloat32());
    program.release();
    return { mixed: mixed!, picture: picture! };
  } finally {
    await loaded.release();
  }
}

/** Our own kernels round no operands, which cuDNN does: to 8 bits, as its results. */
function assertNear(found: Float32Array, expected: Float32Array): void {
  const { nmse, maxAbs } = compare(found, expected);
  const budget = ERROR_BUDGETS["attention/bfloat16"];
  assert.ok(nmse <= 2 * budget.nmse && maxAbs <= 2 * budget.maxAbs, `NMSE ${nmse}, ${maxAbs}`);
  assert.ok(nmse > 0);
}

const standIn = openStandIn("cudnn");
if (typeof standIn === "string") {
  console.log(`cuda: failures of cuDNN are skipped: ${standIn}`);
  test("cuda on the stand-in: failures of cuDNN", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}
