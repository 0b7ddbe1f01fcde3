/** Weights that are dequantized slice by slice, beside float64: each slice has its own part of the layer's end. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { judge, runCase } from "../backends/conformance/cases.ts";
import { buildLinearCase, ENDINGS, formatOf } from "../backends/conformance/weight_cases.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

/** Rows of a slice come in 128, of which no more than those have room at this depth: 128 and 2. */
const SIZE = { m: 65, n: 130, k: 33024 };

const BIASED = ENDINGS.find(({ activation, bias }) => activation === "identity" && bias)!;
const WHOLE = ENDINGS.find(({ bias, gate, residual }) => bias && gate === "rows" && residual)!;

const standIn = openStandIn("slices");
if (typeof standIn === "string") {
  console.log(`cuda: slices are skipped: ${standIn}`);
  test("cuda on the stand-in: slices", { skip: standIn }, () => {});
} else {
  registerSlices(standIn, true);
  registerSlices(standIn, false);
}

function registerSlices({ libraries, count }: StandIn, hasCublasLt: boolean): void {
  const by = hasCublasLt ? "cuBLASLt" : "our own kernels";
  test(`${by}: every slice of a weight has its own bias, gate and residual`, async () => {
    const cublasLtLibrary = hasCublasLt && libraries.cublasLtLibrary;
    const backend = await createCudaBackend({ ...libraries, cublasLtLibrary });
    const before = count("products");
    // The library adds a bias by itself; the rest is ours to end.
    const endings = [...hasCublasLt ? [BIASED] : [], WHOLE];
    for (const [index, ending] of endings.entries()) {
      const options = { mode: { kind: "float" }, budget: "linear/quantized" } as const;
      const format = formatOf("4-bit table, 64 f32");
      const testCase = buildLinearCase(format, ending, SIZE, 47000 + index, options);
      assert.equal(judge(testCase, await runCase(backend, testCase)), null);
    }
    await backend.close();
    assert.equal(count("products") - before >= 2 * endings.length, hasCublasLt);
  });
}
