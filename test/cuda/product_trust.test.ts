/** Products of codes that cuBLASLt refuses or gets wrong: found on known numbers, told by a code, done by our own kernels. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { knownProduct } from "../../src/backends/cuda/known_products.ts";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { type ConformanceCase, runCase } from "../backends/conformance/cases.ts";
import { ENDINGS } from "../backends/conformance/weight_cases.ts";
import { BY_ROW, BY_TENSOR, layer, PLAIN, ROW, TENSOR } from "./float8_cases.ts";
import { int8Cases } from "./int8_cases.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

/** A layer of every kind of product, and how warnings call it. */
const KINDS: readonly [name: string, ConformanceCase][] = [
  ["int8", int8Cases()[0]!],
  ["float8_e4m3fn with a scale for each row", layer(ROW, BY_ROW, PLAIN, 76000)],
  ["float8_e4m3fn with a scale each", layer(TENSOR, BY_TENSOR, PLAIN, 76014)],
  ["float8_e4m3fn", layer(ROW, BY_ROW, ENDINGS[2]!, 76002)],
  [
    "float8_e4m3fn with a scale for each row and a bias",
    layer(ROW, BY_ROW, { ...PLAIN, bias: true }, 76003),
  ],
];

const standIn = openStandIn("product_trust");
if (typeof standIn === "string") {
  console.log(`cuda: trust in products is skipped: ${standIn}`);
  test("cuda on the stand-in: trust in products", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

test("a known product tells a single wrong number and one that is not written", () => {
  for (const operands of ["int8", "float8_e4m3fn"] as const) {
    const { mistake, memory, addresses } = knownProduct(operands, "none");
    const { found } = mistake(memory)!; // all bits set, before it ran
    assert.ok(operands === "int8" ? found === -1 : Number.isNaN(found));
    assert.ok(Object.values(addresses(256)).every((address) => address === 0 || address >= 256));
  }
});

function registerAll(standIn: StandIn): void {
  const { libraries } = standIn;

  /** A case's bytes under settings that hold once the backend has started, and what was warned of. */
  async function run(testCase: ConformanceCase, settings: Parameters<StandIn["set"]>[0], runs = 1) {
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const backend = await createCudaBackend({
      ...libraries,
      matmulPrecision: "bfloat16",
      onWarning,
    });
    standIn.set(settings);
    const before = standIn.count("products");
    let bytes = new Uint8Array();
    for (let i = 0; i < runs; i++) bytes = (await runCase(backend, testCase)).bytes.slice();
    const products = standIn.count("products") - before;
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
    return { bytes, warnings, products };
  }

  for (const [name, testCase] of KINDS) {
    test(`products of ${name} are tried once, and right ones are not spoken of`, async () => {
      const { products, warnings } = await run(testCase, {}, 2);
      // The known one; then the layer's before graphs are captured, and in each of two runs.
      assert.deepEqual([products, warnings], [4, []]);
    });

    const faults: readonly [string, Parameters<StandIn["set"]>[0], RegExp][] = [
      ["one sum wrong", { miscalculateProducts: 2 }, /^\[cuda_product_wrong\].*\(found .*expected/],
      ["nothing done", { miscalculateProducts: 1 }, /^\[cuda_product_wrong\].*\(found .*expected/],
      ["INVALID_VALUE", { refuseProducts: 4 }, /^\[cuda_product_refused\].*INVALID_VALUE \(7\)/],
      ["a failure", { failProduct: 1 }, /^\[cuda_product_refused\].*EXECUTION_FAILED \(13\)/],
    ];
    for (const [fault, settings, expected] of faults) {
      test(`products of ${name} with ${fault} are told of and made by our own kernels`, async () => {
        const own = await run(testCase, { refuseProducts: 3 });
        const { bytes, warnings, products } = await run(testCase, settings);
        assert.match(warnings[0]!, expected);
        assert.ok(warnings[0]!.includes(`products of ${name} `), warnings[0]);
        assert.deepEqual(bytes, own.bytes);
        assert.equal(own.products, 0);
        // A fault that counts calls is over after the first; what replaces scaled products is the library's again.
        const replaced = fault === "a failure" && / with a scale/.test(name);
        if (!replaced) assert.ok(products <= warnings.length, `${products} products`);
      });
    }
  }

  test("sums that cuBLASLt has no algorithm for are told of once", async () => {
    for (const [name, testCase] of [KINDS[0]!, KINDS[3]!]) {
      const { warnings } = await run(testCase, { refuseProducts: 3 }, 2);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, /^\[cuda_product_refused\] cuBLASLt 13\.1\.1 does not take/);
      assert.match(warnings[0]!, new RegExp(`products of ${name} here.*no algorithm to multiply`));
    }
  });
}
