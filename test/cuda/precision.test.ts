/** Products in every precision, by cuBLASLt's stand-in and by our own kernels, beside float64. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import {
  MATMUL_PRECISIONS,
  type MatmulPrecision,
} from "../../src/backends/cuda/matmul_precision.ts";
import { precisionCases, precisionFailures } from "./precision_cases.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("precision");
if (typeof standIn === "string") {
  console.log(`cuda: its precisions are skipped: ${standIn}`);
  test("cuda on the stand-in: precisions", { skip: standIn }, () => {});
} else {
  for (const precision of MATMUL_PRECISIONS) registerPrecision(standIn, precision);
}

function registerPrecision(standIn: StandIn, precision: MatmulPrecision): void {
  const { library, libraries } = standIn;
  /** The products of all cases that the library made. */
  const run = async (cublasLtLibrary: string | false, as: MatmulPrecision): Promise<number> => {
    const options = { ...libraries, cublasLtLibrary, matmulPrecision: precision };
    const backend = await createCudaBackend(options);
    const before = standIn.count("products");
    const failures = await precisionFailures(backend, as);
    await backend.close();
    assert.deepEqual(failures, []);
    return standIn.count("products") - before;
  };

  test(`${precision} products of cuBLASLt are those of rounded operands`, async () => {
    assert.ok(await run(library, precision) >= precisionCases(precision).length);
  });

  test(`${precision} products of our own kernels are those of rounded operands`, async () => {
    // Without the library nothing rounds to TF32, which would gain nothing.
    const as = precision === "tensorfloat32" ? "float32" : precision;
    assert.equal(await run(false, as), 0);
  });

  test(`${precision} products whose end cuBLASLt refuses get ours`, async () => {
    standIn.set({ refuseProducts: 1 });
    assert.ok(await run(library, precision) > 0);
    standIn.reset();
  });
}
