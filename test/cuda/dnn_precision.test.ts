/** Attention and convolutions in every precision by cuDNN's stand-in, beside float64. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { MATMUL_PRECISIONS } from "../../src/backends/cuda/matmul_precision.ts";
import { attentionCases } from "../backends/conformance/attention_cases.ts";
import { conv2dCases } from "../backends/conformance/product_cases.ts";
import { caseFailures, dnnCases } from "./dnn_cases.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("dnn_precision");
if (typeof standIn === "string") {
  console.log(`cuda: precisions of cuDNN are skipped: ${standIn}`);
  test("cuda on the stand-in: precisions of cuDNN", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  for (const matmulPrecision of MATMUL_PRECISIONS) {
    test(`${matmulPrecision} attention and convolutions of cuDNN are those of rounded operands`, async () => {
      const backend = await createCudaBackend({ ...standIn.libraries, matmulPrecision });
      const before = standIn.count("operations");
      const cases = dnnCases(matmulPrecision);
      assert.deepEqual(await caseFailures(backend, cases), []);
      assert.ok(standIn.count("operations") - before >= cases.length);
      await backend.close();
    });
  }

  test("what cuDNN does not do is exact in every precision", async () => {
    const options = { ...standIn.libraries, matmulPrecision: "bfloat16" } as const;
    const backend = await createCudaBackend({ ...options, cudnnLibrary: false });
    const before = standIn.count("operations");
    const cases = [...attentionCases(), ...conv2dCases()];
    assert.deepEqual(await caseFailures(backend, cases), []);
    assert.equal(standIn.count("operations"), before);
    await backend.close();
  });
}
