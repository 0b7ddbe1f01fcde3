/** Which of cuBLASLt's algorithms is taken, on its stand-in, where time passes as a test says. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend, type CudaBackendOptions } from "../../src/backends/cuda/mod.ts";
import { HalftoneError } from "../../src/errors.ts";
import { type ConformanceCase, runCase } from "../backends/conformance/cases.ts";
import { buildLinearCase, ENDINGS, formatOf } from "../backends/conformance/weight_cases.ts";
import { failsWith, openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("algorithm_choice");
if (typeof standIn === "string") {
  console.log(`cuda: the choice of algorithms is skipped: ${standIn}`);
  test("cuda on the stand-in: the choice of algorithms", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

type Settings = Parameters<StandIn["set"]>[0];

/** A layer that needs one product, of a size that nothing else here has. */
function layer(n: number): ConformanceCase {
  const options = { mode: { kind: "float" }, budget: "linear/dense" } as const;
  return buildLinearCase(formatOf("float32"), ENDINGS[1]!, { m: 70, n, k: 16 }, 81000, options);
}

/** Algorithms that run, and their runs: one beforehand, three that are timed. */
const ALGORITHMS = 3;
const RUNS = 4;
/** Runs of a product that is chosen: before graphs are captured, and in the run. */
const USES = 2;

function registerAll(standIn: StandIn): void {
  const { libraries } = standIn;

  /** The algorithm that a layer of n columns ends with, and how often the library was asked and multiplied. */
  async function choice(n: number, settings: Settings, options: Partial<CudaBackendOptions> = {}) {
    standIn.set(settings);
    const backend = await createCudaBackend({ ...libraries, measureProductsFrom: 1, ...options });
    const counts = () => [standIn.count("heuristics"), standIn.count("products")] as const;
    const before = counts();
    const output = await runCase(backend, layer(n));
    const algorithm = standIn.count("lastAlgorithm");
    const [heuristics, products] = counts().map((value, i) => value - before[i]!);
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
    return { algorithm, heuristics, products, bytes: output.bytes };
  }

  for (const fastestAlgorithm of [0, 1, 2]) {
    test(`the fastest of the algorithms is taken, number ${fastestAlgorithm}`, async () => {
      const settings = { productMicroseconds: 100, fastestAlgorithm };
      const { algorithm, heuristics, products } = await choice(20 + fastestAlgorithm, settings);
      assert.equal(algorithm, fastestAlgorithm);
      assert.deepEqual([heuristics, products], [1, ALGORITHMS * RUNS + USES]);
    });
  }

  test("of algorithms that are alike the library's first choice is taken", async () => {
    const { algorithm, products } = await choice(30, { productMicroseconds: 0 });
    assert.deepEqual([algorithm, products], [0, ALGORITHMS * RUNS + USES]);
  });

  test("a choice is made once for a device, a version and a product, and kept for all backends", async () => {
    const first = await choice(40, { productMicroseconds: 100, fastestAlgorithm: 2 });
    assert.equal(first.algorithm, 2);
    const other = { productMicroseconds: 100, fastestAlgorithm: 1 };
    const again = await choice(40, other);
    assert.deepEqual([again.algorithm, again.heuristics, again.products], [2, 0, USES]);
    assert.deepEqual(again.bytes, first.bytes);
    assert.equal((await choice(40, { ...other, capability: 89 })).algorithm, 1);
    assert.equal((await choice(40, { ...other, libraryVersion: 130000 })).algorithm, 1);
    assert.equal((await choice(41, other)).algorithm, 1);
    assert.equal((await choice(40, other)).algorithm, 2);
  });

  test("only products of so many multiplications are timed, small ones never by default", async () => {
    const settings = { productMicroseconds: 100, fastestAlgorithm: 1 };
    const size = 70 * 50 * 16;
    for (const measureProductsFrom of [size + 1, Infinity, undefined]) {
      const { algorithm, products } = await choice(50, settings, { measureProductsFrom });
      assert.deepEqual([algorithm, products], [0, USES]);
    }
    const { algorithm } = await choice(50, settings, { measureProductsFrom: size });
    assert.equal(algorithm, 1);
  });

  test("slow products are not timed to the end", async () => {
    const slow = { productMicroseconds: 10_000, fastestAlgorithm: 2 };
    // The first takes 30 ms a run, so its runs spend what there is.
    const one = await choice(60, slow);
    assert.deepEqual([one.algorithm, one.products], [0, RUNS + USES]);
    // 9 and 6 ms a run: the second's runs go over.
    const two = await choice(61, { ...slow, productMicroseconds: 3000 });
    assert.deepEqual([two.algorithm, two.products], [1, 2 * RUNS + USES]);
  });

  test("every call of the timing may fail: a clear error, and nothing stays", async () => {
    const asked: string[] = [];
    for (let k = 1; k <= 13; k++) {
      const backend = await createCudaBackend({ ...libraries, measureProductsFrom: 1 });
      standIn.set({ failEvent: k });
      const error = await runCase(backend, layer(70)).then(() => null, (error) => error);
      standIn.reset();
      await backend.close();
      standIn.assertNothingHeld();
      assert.ok(error instanceof HalftoneError && error.code === "backend_failed", String(error));
      assert.match(error.message, /^Cannot .*CUDA_ERROR_LAUNCH_FAILED \(719\)/);
      asked.push(error.detail.field!);
    }
    const mark = ["cuEventCreate", "cuEventRecord"];
    const timing = [...mark, ...mark, "cuEventSynchronize", "cuEventElapsedTime"];
    assert.deepEqual(asked, [...timing, ...timing, mark[0]]); // two timings, and the next candidate's
  });

  test("a product that fails while it is timed is an error in the library's words", async () => {
    for (const failProduct of [1, 3, 6]) {
      const backend = await createCudaBackend({ ...libraries, measureProductsFrom: 1 });
      standIn.set({ failProduct });
      await failsWith(
        runCase(backend, layer(80)),
        "backend_failed",
        /Cannot multiply matrices \[70, 16\] and \[80, 16\].*CUBLAS_STATUS_EXECUTION_FAILED/,
      );
      standIn.reset();
      await backend.close();
      standIn.assertNothingHeld();
    }
  });

  test("a size from which products are timed that is none is refused", async () => {
    for (const measureProductsFrom of [-1, NaN]) {
      await failsWith(
        createCudaBackend({ ...libraries, measureProductsFrom }),
        "invalid_argument",
        /measureProductsFrom.*a number from 0, or Infinity/,
      );
    }
    standIn.assertNothingHeld();
  });
}
