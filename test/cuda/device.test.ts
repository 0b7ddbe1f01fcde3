/** The conformance suite on a real device, where there is one; `deno task test:cuda` runs this file alone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { HalftoneError } from "../../src/errors.ts";
import { registerGuards } from "../backends/conformance/guards.ts";
import { registerConformance, registerGuardZones } from "../backends/conformance/register.ts";
import { precisionFailures } from "./precision_cases.ts";

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
  const subject = { name: "cuda", create: () => createCudaBackend() };
  registerConformance(subject);
  registerGuardZones(subject);
  registerGuards(subject);
  registerConformance({
    name: "cuda without cuBLASLt",
    create: () => createCudaBackend({ cublasLtLibrary: false }),
    skip: ({ op }) => op === "linear" ? null : "only linear layers ask cuBLASLt",
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
