/** The promises of a backend beside its numbers, and failures on purpose, on the stand-in driver. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Backend, Program } from "../../src/backends/backend.ts";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { chooseBackend } from "../../src/backends/select.ts";
import { type ErrorCode, HalftoneError } from "../../src/errors.ts";
import { linear } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { registerGuards } from "../backends/conformance/guards.ts";
import { compileNetwork, makeNetwork } from "../backends/conformance/network.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("guards");
if (typeof standIn === "string") {
  console.log(`cuda: its guards and forced failures are skipped: ${standIn}`);
  test("cuda on the stand-in: guards and failures", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  const { libraries } = standIn;
  const create = (residentWeightBytes?: number) =>
    createCudaBackend({ ...libraries, residentWeightBytes });
  registerGuards({ name: "cuda on the stand-in", create: () => create() });

  test("streamed weights give the same bytes as resident ones, in slots of any size", async () => {
    const network = makeNetwork({ tokens: 12, width: 64, heads: 2, blocks: 3 });
    const pictures: Uint8Array[] = [];
    for (const bytes of [undefined, 1, 60_000, 200_000]) {
      const backend = await create(bytes);
      const { program } = await compileNetwork(backend, network);
      for (let run = 0; run < 3; run++) await program.run();
      pictures.push(program.read("picture").bytes);
      await backend.close();
    }
    for (const picture of pictures.slice(1)) assert.deepEqual(picture, pictures[0]);
  });

  test("1,000 runs leave nothing more on the device than one", async () => {
    const backend = await create();
    const program = await smallProgram(backend);
    await program.run();
    const held = (["allocations", "bytes", "objects"] as const).map(standIn.count);
    for (let run = 1; run < 1000; run++) await program.run();
    assert.deepEqual((["allocations", "bytes", "objects"] as const).map(standIn.count), held);
    await backend.close();
  });

  test("every allocation may fail: a clear error, and nothing stays allocated", async () => {
    let failed = 0;
    for (let k = 1;; k++) {
      standIn.set({ failAllocation: k });
      const error = await useOnce(() => create());
      standIn.reset();
      assertNothingHeld(standIn);
      if (error === null) break;
      assertCode(error, "out_of_memory");
      assert.match(
        String(error),
        /Cannot allocate .*CUDA_ERROR_OUT_OF_MEMORY \(2\): out of memory/,
      );
      failed++;
    }
    assert.ok(failed >= 4, `${failed} allocations`); // staging, weights, arena, scratch
  });

  test("every launch may fail while a plan is made: a clear error, and nothing stays", async () => {
    for (const k of [1, 2, 7]) {
      standIn.set({ failLaunch: k });
      const error = await useOnce(() => create());
      standIn.reset();
      assertCode(error, "backend_failed");
      assert.match(String(error), /Cannot launch kernel \w+ .*CUDA_ERROR_LAUNCH_FAILED \(719\)/);
      assertNothingHeld(standIn);
    }
  });

  test("a kernel that fails while it runs ends the run with the driver's words", async () => {
    standIn.set({ failExecution: 5 });
    const error = await useOnce(() => create());
    standIn.reset();
    assertCode(error, "backend_failed");
    assert.match(String(error), /Cannot .*CUDA_ERROR_ILLEGAL_ADDRESS \(700\)/);
    assertNothingHeld(standIn);
  });

  test("weights that do not fit are an error before anything runs", async () => {
    const backend = await create();
    standIn.set({ memoryBytes: 500_000 });
    const before = standIn.count("launches");
    const network = makeNetwork({ tokens: 4, width: 128, heads: 1, blocks: 2 });
    await assert.rejects(compileNetwork(backend, network), (error) => {
      assertCode(error, "out_of_memory");
      assert.match(String(error), /quantized weights, a smaller picture/);
      return true;
    });
    assert.equal(standIn.count("launches"), before);
    await backend.close();
    standIn.reset();
    assertNothingHeld(standIn);
  });

  test("what is missing is named: a library, a device, a newer driver, a build", async () => {
    const refused = async (settings: Parameters<StandIn["set"]>[0], expected: RegExp) => {
      standIn.set(settings);
      await assert.rejects(create(), (error) => {
        assertCode(error, "backend_unavailable");
        assert.match(String(error), expected);
        return true;
      });
      standIn.reset();
      assertNothingHeld(standIn);
    };
    await refused({ deviceCount: 0 }, /no device.*CUDA_ERROR_NO_DEVICE \(100\)/);
    await refused({ driverVersion: 11080 }, /too old.*found "11\.8".*CUDA 12\.0 or newer/);
    await refused({ miscalculate: 1 }, /the device gets a norm wrong/);
    await refused({ capability: 75 }, /not built for this device.*7\.5/);
    await assert.rejects(
      createCudaBackend({ driverLibrary: "libhalftone_missing.so.9" }),
      (error) => {
        assertCode(error, "backend_unavailable");
        assert.match(String(error), /libhalftone_missing\.so\.9/);
        return true;
      },
    );
    await assert.rejects(
      createCudaBackend({ ...libraries, cublasLtLibrary: false, device: 3 }),
      (error) => assertCode(error, "backend_unavailable"),
    );
  });

  test("devices without a build of their own get the PTX", async () => {
    standIn.set({ capability: 121 });
    assert.equal(await useOnce(() => create()), null);
    standIn.reset();
  });

  test("auto takes cuda where it starts, and says what it found", async () => {
    const { backend, reason } = await chooseBackend(libraries);
    assert.equal(backend.name, "cuda");
    assert.match(
      reason,
      /^cuda: stand-in for a GPU \(sm_90, driver for CUDA 12\.8, cuBLASLt 13\.1\.1, cuDNN 9\.20\.0\)/,
    );
    await backend.close();
    standIn.set({ deviceCount: 0 });
    const other = await chooseBackend({ ...libraries, threads: 1 });
    standIn.reset();
    assert.equal(other.backend.name, "wasm");
    assert.match(other.reason, /Cannot start cuda: there is no device/);
    await other.backend.close();
  });
}

/** A single linear layer. */
async function smallProgram(backend: Backend): Promise<Program> {
  const weights = new TestWeights();
  weights.add("w", denseWeight(new Random(1), "float32", [4, 4]));
  const graph = new Graph("small", weights);
  graph.output("y", linear(graph.input("x", [2, 4]), graph.weight("w", [4, 4])));
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  return await backend.compile(plan, await backend.loadWeights(plan.weights, weights));
}

/** Opens a backend, runs a small network on it and closes it; the error that stopped it, or null. */
async function useOnce(create: () => Promise<Backend>): Promise<unknown> {
  let backend: Backend | undefined;
  try {
    backend = await create();
    const { program } = await compileNetwork(backend, makeNetwork());
    await program.run();
    program.read("picture");
    return null;
  } catch (error) {
    return error;
  } finally {
    await backend?.close();
  }
}

function assertNothingHeld(standIn: StandIn): void {
  const held = (["allocations", "bytes", "objects"] as const).map(standIn.count);
  assert.deepEqual(held, [0, 0, 0]);
}

function assertCode(error: unknown, code: ErrorCode): boolean {
  assert.ok(error instanceof HalftoneError, String(error));
  assert.equal(error.code, code, error.message);
  return true;
}
