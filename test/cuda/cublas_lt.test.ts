/** cuBLASLt missing, failing or wrong, on its stand-in: a warning and our own kernels, or a clear error. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend, type CudaBackendOptions } from "../../src/backends/cuda/mod.ts";
import { alignmentOf } from "../../src/backends/cuda/matmul_problem.ts";
import type { Backend } from "../../src/backends/backend.ts";
import { HalftoneError } from "../../src/errors.ts";
import { linear } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("cublas_lt");
if (typeof standIn === "string") {
  console.log(`cuda: failures of cuBLASLt are skipped: ${standIn}`);
  test("cuda on the stand-in: failures of cuBLASLt", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

test("an address is aligned to its largest power of two, 256 at most", () => {
  const found = [1, 6, 4, 24, 48, 256, 4096, 2 ** 40 + 128].map(alignmentOf);
  assert.deepEqual(found, [1, 2, 4, 8, 16, 256, 256, 128]);
});

type Settings = Parameters<StandIn["set"]>[0];

function registerAll(standIn: StandIn): void {
  /** A backend under settings of the stand-in, and what it warned of. */
  async function open(settings: Settings, options: Partial<CudaBackendOptions> = {}) {
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    standIn.set(settings);
    const backend = await createCudaBackend({ ...standIn.libraries, onWarning, ...options });
    return { backend, warnings };
  }

  /** The backend multiplies as one with cuBLASLt does, and without it; closes it. */
  async function assertOwnProducts(backend: Backend): Promise<void> {
    const before = standIn.count("products");
    const products = await multiply(backend);
    assert.equal(standIn.count("products"), before);
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
    const { backend: usual } = await open({});
    assertNear(products, await multiply(usual));
    await usual.close();
  }

  test("products of many rows are made by cuBLASLt, each kind of product asked for once", async () => {
    const { backend, warnings } = await open({});
    assert.deepEqual(warnings, []);
    const started = standIn.count("objects");
    const before = standIn.count("products");
    const first = await multiply(backend);
    const kinds = standIn.count("objects") - started;
    assert.ok(standIn.count("products") > before);
    assert.deepEqual(await multiply(backend), first);
    assert.equal(standIn.count("objects") - started, kinds);
    await backend.close();
    standIn.assertNothingHeld();
  });

  const without: readonly [name: string, Settings, Partial<CudaBackendOptions>, RegExp][] = [
    [
      "is missing",
      {},
      { cublasLtLibrary: "libhalftone_missing.so.9" },
      /libhalftone_missing\.so\.9/,
    ],
    ["is too old", { libraryVersion: 111103 }, {}, /too old.*"11\.11\.3".*12\.0\.1 or newer/],
    [
      "does not start",
      { failLibraryStart: 1 },
      {},
      /Cannot start cuBLASLt.*CUBLAS_STATUS_NOT_INITIALIZED \(1\): the library was not initialized/,
    ],
    [
      "fails in its first product",
      { failProduct: 1 },
      {},
      /Cannot multiply matrices.*CUBLAS_STATUS_EXECUTION_FAILED \(13\)/,
    ],
    [
      "multiplies wrongly",
      { miscalculateProducts: 1 },
      {},
      /the device gets a matrix product wrong/,
    ],
  ];
  for (const [name, settings, options, expected] of without) {
    test(`where cuBLASLt ${name}, a warning says so and our own kernels multiply`, async () => {
      const { backend, warnings } = await open(settings, options);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, /^Without cuBLASLt .*slower kernels.*nvidia-cublas/);
      assert.match(warnings[0]!, expected);
      assert.match(backend.description, /, no cuBLASLt, cuDNN 9\.20\.0\)$/);
      await assertOwnProducts(backend);
    });
  }

  test("without an algorithm our own kernels multiply", async () => {
    const { backend, warnings } = await open({ refuseProducts: 2 });
    assert.deepEqual(warnings, []);
    await assertOwnProducts(backend);
  });

  test("a product that fails is an error in the library's words, and nothing stays", async () => {
    const { backend } = await open({});
    standIn.set({ failProduct: 1 });
    await assert.rejects(multiply(backend), (error) => {
      assert.ok(error instanceof HalftoneError, String(error));
      assert.equal(error.code, "backend_failed");
      assert.match(
        error.message,
        /Cannot multiply matrices \[80, 48\] and \[96, 48\].*CUBLAS_STATUS_EXECUTION_FAILED \(13\)/,
      );
      return true;
    });
    standIn.reset();
    await multiply(backend);
    await backend.close();
    standIn.assertNothingHeld();
  });

  test("a precision that is none is refused", async () => {
    const matmulPrecision = "float64" as "float32";
    await assert.rejects(open({}, { matmulPrecision }), (error) => {
      assert.ok(error instanceof HalftoneError && error.code === "invalid_argument");
      assert.match(error.message, /matmulPrecision.*float64.*float32, tensorfloat32/);
      return true;
    });
    standIn.assertNothingHeld();
  });
}

/** One linear layer with a bias, x [80, 48] times [96, 48]. */
async function multiply(backend: Backend): Promise<Float32Array> {
  const random = new Random(5);
  const weights = new TestWeights();
  weights.add("w", denseWeight(random, "float32", [96, 48]));
  weights.add("b", denseWeight(random, "float32", [96]));
  const graph = new Graph("product", weights);
  const x = graph.input("x", [80, 48]);
  graph.output("y", linear(x, graph.weight("w", [96, 48]), graph.weight("b", [96])));
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const loaded = await backend.loadWeights(plan.weights, weights);
  try {
    const program = await backend.compile(plan, loaded);
    const values = Float32Array.from({ length: 80 * 48 }, () => random.normal());
    program.write("x", HostTensor.fromFloat32(values, [80, 48]));
    await program.run();
    const y = program.read("y").toFloat32();
    program.release();
    return y;
  } finally {
    await loaded.release();
  }
}

function assertNear(found: Float32Array, expected: Float32Array): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  assert.ok(largest > 1);
  found.forEach((value, index) => {
    assert.ok(Math.abs(value - expected[index]!) <= 1e-5 * largest, `${index}: ${value}`);
  });
}
