/** The conformance suite on a real device, where there is one; `deno task test:cuda` runs this file alone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { HalftoneError } from "../../src/errors.ts";
import { registerGuards } from "../backends/conformance/guards.ts";
import { registerConformance, registerGuardZones } from "../backends/conformance/register.ts";
import { runCase } from "../backends/conformance/cases.ts";
import { block, CODE_MODES, runCodes } from "./code_graphs.ts";
import { caseFailures, dnnCases } from "./dnn_cases.ts";
import { float8Cases } from "./float8_cases.ts";
import { int8Cases, llmInt8Cases } from "./int8_cases.ts";
import { usesLibraries } from "./library_ops.ts";
import { precisionFailures } from "./precision_cases.ts";
import { lackedByCuda } from "./unsupported_cases.ts";

/** Why there is no device to test, or null. */
async function whyNot(): Promise<string | null> {
  try {
    const backend = await createCudaBackend();
    console.log(`cuda: ${backend.description}`);
    await backend.close();
    return null;
  } catch (error) {
    if (error instanceof HalftoneError && error.code === "backend_unavailable") {
      return error.message;
    }
    throw error;
  }
}

const reason = await whyNot();
if (reason === null) {
  const create = () => createCudaBackend();
  const subject = { name: "cuda", create, skip: lackedByCuda };
  registerConformance(subject);
  registerGuardZones(subject);
  registerGuards(subject);
  registerConformance({
    name: "cuda without cuBLASLt and cuDNN",
    create: () => createCudaBackend({ cublasLtLibrary: false, cudnnLibrary: false }),
    skip: (testCase) =>
      lackedByCuda(testCase) ??
        (usesLibraries(testCase.op) ? null : "the libraries have no part in it"),
  });
  for (const precision of ["float16", "bfloat16"] as const) {
    test(`cuda: ${precision} attention and convolutions of cuDNN`, async (context) => {
      const backend = await createCudaBackend({ matmulPrecision: precision });
      if (!backend.products.dnn?.hasAttention) context.skip("cuDNN 9.13.1 or newer is missing");
      else assert.deepEqual(await caseFailures(backend, dnnCases(precision)), []);
      await backend.close();
    });
  }
  test("cuda: products of int8 and LLM.int8() are exact, cuBLASLt's and our own", async () => {
    const asked = [...int8Cases(), ...llmInt8Cases()];
    const outputs: Uint8Array[][] = [];
    for (const cublasLtLibrary of [undefined, false] as const) {
      const backend = await createCudaBackend({ cublasLtLibrary });
      assert.deepEqual(await caseFailures(backend, asked), []);
      outputs.push([]);
      for (const testCase of asked) outputs.at(-1)!.push((await runCase(backend, testCase)).bytes);
      await backend.close();
    }
    assert.deepEqual(outputs[0], outputs[1]);
  });
  for (const { name, mode } of CODE_MODES) {
    test(`cuda: ${name}: shared codes give the bytes of rounding apart`, async () => {
      const shared = await runCodes({}, mode, block);
      const apart = await runCodes({}, mode, block, { apart: true });
      assert.deepEqual(shared.values, apart.values);
    });
  }
  test("cuda: known products of codes are right, or told of", async () => {
    const warnings: string[] = [];
    const options = { onWarning: (message: string) => void warnings.push(message) };
    for (const { mode } of CODE_MODES) await runCodes(options, mode, block);
    console.log(warnings.join("\n"));
    assert.deepEqual(warnings.filter((warning) => warning.includes("cuda_product_wrong")), []);
  });
  test("cuda: products of float8", async (context) => {
    const backend = await createCudaBackend({ matmulPrecision: "bfloat16" });
    // Without units the operands are rounded to bfloat16, which other tests expect.
    if (!backend.products.library?.multipliesFloat8) context.skip("no units or no cuBLASLt");
    else assert.deepEqual(await caseFailures(backend, float8Cases("linear/float8 units")), []);
    await backend.close();
  });
  // What TF32 units round to is theirs to say, so that precision has no exact expectation here.
  for (const precision of ["float16", "bfloat16"] as const) {
    for (const cublasLtLibrary of [undefined, false] as const) {
      test(`cuda: ${precision} products, ${cublasLtLibrary === false ? "our own" : "any"}`, async () => {
        const options = { matmulPrecision: precision, cublasLtLibrary };
        const backend = await createCudaBackend(options);
        assert.deepEqual(await precisionFailures(backend, precision), []);
        await backend.close();
      });
    }
  }
} else {
  console.log(`cuda: all tests on a device are skipped, no device: ${reason}`);
  test("cuda on a device", { skip: reason }, () => {});
}
