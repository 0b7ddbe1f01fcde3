/** The op matmul by cuBLASLt's stand-in, whichever way operands lie, and by our own kernel where it cannot be. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Launch } from "../../src/backends/cuda/cuda_step.ts";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import {
  MATMUL_PRECISIONS,
  type MatmulPrecision,
} from "../../src/backends/cuda/matmul_precision.ts";
import { matmul } from "../../src/ops/builders.ts";
import { type ConformanceCase, floats, judge, runCase } from "../backends/conformance/cases.ts";
import { matmulCases } from "../backends/conformance/product_cases.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("matmul");
if (typeof standIn === "string") {
  console.log(`cuda: matmul by cuBLASLt is skipped: ${standIn}`);
  test("cuda on the stand-in: matmul by cuBLASLt", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  /** What is wrong of cases, their last result, and how many graphs were made of products by whom. */
  async function run(
    cases: readonly ConformanceCase[],
    { refuseProducts = 0, matmulPrecision = "float32" as MatmulPrecision },
  ) {
    const backend = await createCudaBackend({ ...standIn.libraries, matmulPrecision });
    const launches: Launch[] = [];
    const enqueue = backend.enqueue.bind(backend);
    backend.enqueue = (launch) => {
      launches.push(launch);
      enqueue(launch);
    };
    standIn.set({ refuseProducts });
    const failures: (string | null)[] = [];
    let values = new Float32Array();
    for (const testCase of cases) {
      const found = await runCase(backend, testCase);
      failures.push(judge(testCase, found));
      values = Float32Array.from(found.toFloat32());
    }
    standIn.reset();
    await backend.close();
    standIn.assertNothingHeld();
    const own = launches.filter((launch) => launch.kind === "kernel" && launch.kernel === "matmul");
    const library = launches.filter(({ kind }) => kind === "matmul");
    return {
      failures: failures.filter((failure) => failure !== null),
      values,
      own: own.length,
      library: library.length,
    };
  }

  test("operands in rows, in columns and in batches are multiplied by cuBLASLt", async () => {
    const cases = matmulCases();
    const { failures, own, library } = await run(cases, {});
    assert.deepEqual([failures, own], [[], 0]);
    assert.ok(library >= cases.length);
  });

  test("what cuBLASLt has no algorithm for is multiplied by our own kernel", async () => {
    const cases = matmulCases();
    const { failures, own, library } = await run(cases, { refuseProducts: 2 });
    assert.deepEqual([failures, own, library], [[], cases.length, 0]);
  });

  test("so are matrices whose numbers lie apart along rows and columns", async () => {
    const [m, k] = [3, 4];
    const values = Float32Array.from({ length: 2 * m * k }, (_, i) => i % 7 - 3);
    const apart: ConformanceCase = {
      name: "every other number",
      op: "matmul",
      budget: "matmul",
      inputs: { x: floats(values, [1, m, 2 * k]) },
      build: (_, { x }) => {
        const every = x!.reshape([1, m, k, 2]).slice(3, 1, 2).reshape([1, m, k]);
        return matmul(every, every, 0.5);
      },
      expected: () =>
        Array.from({ length: m * m }, (_, i) => {
          const [row, column] = [Math.floor(i / m), i % m];
          const at = (line: number, j: number) => values[(line * k + j) * 2 + 1]!;
          return 0.5 * Array.from({ length: k }, (_, j) => at(row, j) * at(column, j))
            .reduce((sum, value) => sum + value);
        }),
    };
    const { failures, own, library } = await run([apart], {});
    assert.deepEqual([failures, own, library], [[], 1, 0]);
  });

  test("below float32, operands may be rounded to TF32, and to no fewer bits", async () => {
    // One has 12 bits behind its point, which TF32 drops; the other 9, which it keeps and 16 bits of bfloat16 do not.
    const testCase: ConformanceCase = {
      name: "bits",
      op: "matmul",
      budget: "matmul",
      inputs: { x: floats([1 + 2 ** -12, 1 + 2 ** -9], [1, 2, 1]), one: floats([1], [1, 1, 1]) },
      build: (_, { x, one }) => matmul(x!, one!),
      expected: () => [],
    };
    for (const matmulPrecision of MATMUL_PRECISIONS) {
      const { values, library } = await run([{ ...testCase }], { matmulPrecision });
      const first = matmulPrecision === "float32" ? 1 + 2 ** -12 : 1;
      assert.deepEqual([[...values], library > 0], [[first, 1 + 2 ** -9], true]);
    }
  });
}
