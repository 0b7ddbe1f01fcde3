/** Layers over int8 activations and integer weights: exact sums, by cuBLASLt's stand-in and by our own kernels. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isInt8Weight } from "../../src/backends/cuda/coded_weight.ts";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import type { QuantizedActivations } from "../../src/ops/activation_mode.ts";
import { linear } from "../../src/ops/builders.ts";
import { type ConformanceCase, floats, judge, runCase } from "../backends/conformance/cases.ts";
import { buildLinearCase, ENDINGS } from "../backends/conformance/weight_cases.ts";
import {
  INT8_FORMATS,
  INT8_SIZES,
  int8Cases,
  int8Modes,
  llmInt8Cases,
  OTHER_FORMATS,
} from "./int8_cases.ts";
import { failsWith, openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("int8_products");
if (typeof standIn === "string") {
  console.log(`cuda: products of int8 are skipped: ${standIn}`);
  test("cuda on the stand-in: products of int8", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  const { library, libraries } = standIn;

  /** What cases give, and how many products of integers the library made of them. */
  async function run(
    asked: readonly ConformanceCase[],
    cublasLtLibrary: string | false,
    judged = true,
  ): Promise<{ outputs: Uint8Array[]; products: number }> {
    const backend = await createCudaBackend({ ...libraries, cublasLtLibrary });
    const before = standIn.count("integerProducts");
    const outputs: Uint8Array[] = [];
    for (const testCase of asked) {
      const found = await runCase(backend, testCase);
      if (judged) assert.equal(judge(testCase, found), null);
      outputs.push(found.bytes);
    }
    await backend.close();
    return { outputs, products: standIn.count("integerProducts") - before };
  }

  for (
    const [name, make] of Object.entries({
      "int8 activations": int8Cases,
      "LLM.int8()": llmInt8Cases,
    })
  ) {
    test(`${name}: cuBLASLt's sums of integers and our own give the same bytes`, async () => {
      const asked = make();
      const byLibrary = await run(asked, library);
      // A product before graphs are captured, where its kind is new, and one in the run.
      assert.ok(byLibrary.products >= asked.length && byLibrary.products <= 2 * asked.length);
      const own = await run(asked, false);
      assert.equal(own.products, 0);
      assert.deepEqual(own.outputs, byLibrary.outputs);
    });
  }

  test("where cuBLASLt refuses integers, or has never heard of them, our own kernel sums", async () => {
    const asked = [...int8Cases().slice(0, 8), ...llmInt8Cases().slice(0, 3)];
    const { outputs } = await run(asked, library);
    for (const refuseProducts of [3, 4]) {
      standIn.set({ refuseProducts });
      const refused = await run(asked, library);
      standIn.reset();
      assert.equal(refused.products, 0);
      assert.deepEqual(refused.outputs, outputs);
    }
  });

  test("weights whose codes are no int8 of one scale a row stay floats", async () => {
    const options = { mode: int8Modes()[0]!, budget: "linear/quantized activations" } as const;
    const asked = OTHER_FORMATS.map((format, f) =>
      buildLinearCase(format, ENDINGS[f]!, INT8_SIZES[1]!, 63000 + f, options)
    );
    assert.equal((await run(asked, library)).products, 0);
  });

  test("codes beyond 8 bits, and sums that could pass 32, are none for products of int8", () => {
    const isTaken = (columns: number, bits: number, zeroPoint: number) =>
      isInt8Weight({
        rows: 16,
        columns,
        descriptor: [],
        coded: {
          codes: 0,
          scales: 0,
          layout: {
            bits,
            value: { kind: "integer", zeroPoint },
            groupSize: columns,
            scale: { kind: "float", dtype: "float32" },
            offset: null,
          },
        },
        plain: null,
      });
    const most = Math.floor((2 ** 31 - 1) / (255 * 128));
    assert.deepEqual([isTaken(most, 8, 128), isTaken(most + 1, 8, 128)], [true, false]);
    assert.deepEqual([127, 129].map((zero) => isTaken(16, 8, zero)), [false, false]);
    const zeros = [-1, 0, 7.5, 128, 129];
    assert.deepEqual(
      zeros.map((zero) => isTaken(16, 7, zero)),
      [false, true, false, true, false],
    );
  });

  test("a row of LLM.int8() is the same among few rows and among many", async () => {
    const [m, n, k] = [64, 33, 131];
    const values = Float32Array.from({ length: (m + 1) * k }, (_, i) => Math.sin(i * i) * 3);
    for (let i = 5; i < m * k; i += 97) values[i] = 8 + i % 7; // outliers
    values.fill(0.25, m * k);
    const layer = (rows: number) => {
      const options = {
        mode: { kind: "llm_int8", threshold: 6 },
        budget: "linear/llm_int8",
      } as const;
      const built = buildLinearCase(INT8_FORMATS[0]!, ENDINGS[1]!, { m: 1, n, k }, 64000, options);
      return {
        ...built,
        inputs: { x: floats(values.subarray(0, rows * k), [rows, k]) },
        build: plainLayer(n, k),
      };
    };
    const { outputs: [few] } = await run([layer(m)], library, false);
    const { outputs: [many], products } = await run([layer(m + 1)], library, false);
    assert.ok(products > 0);
    assert.deepEqual(many!.subarray(0, few!.length), few);
  });

  test("a NaN or an infinity makes its row NaN, and no other", async () => {
    const [m, n, k] = [70, 32, 48];
    for (const mode of [int8Modes()[0], int8Modes()[1], int8Modes()[5]] as QuantizedActivations[]) {
      for (const broken of [NaN, Infinity, -Infinity]) {
        const x = Float32Array.from({ length: m * k }, (_, i) => Math.cos(i));
        const clean = await run([brokenCase(x, mode)], library, false);
        x[33 * k + 7] = broken;
        const found = await run([brokenCase(x, mode)], library, false);
        const rows = [clean, found].map(({ outputs: [bytes] }) => floatsOf(bytes!));
        const isClamped = mode.scale.kind === "static" && broken === broken;
        for (let i = 0; i < m * n; i++) {
          const isBroken = Math.floor(i / n) === 33;
          const [before, after] = [rows[0]![i]!, rows[1]![i]!];
          if (isBroken) {
            assert.equal(Number.isNaN(after), !isClamped, `${broken} ${mode.scale.kind}`);
          } else assert.equal(after, before);
        }
      }
    }
    function brokenCase(x: Float32Array, mode: QuantizedActivations): ConformanceCase {
      const options = { mode, budget: "linear/quantized activations" } as const;
      const built = buildLinearCase(INT8_FORMATS[1]!, ENDINGS[0]!, { m: 1, n, k }, 65000, options);
      return { ...built, inputs: { x: floats(x, [m, k]) }, build: plainLayer(n, k) };
    }
  });

  test("a product of integers that fails is an error in the library's words, and nothing stays", async () => {
    const backend = await createCudaBackend(libraries);
    standIn.set({ failProduct: 2 }); // the first is a known one
    await failsWith(
      runCase(backend, int8Cases()[0]!),
      "backend_failed",
      /Cannot multiply matrices \[66, 96\] and \[48, 96\].*CUBLAS_STATUS_EXECUTION_FAILED \(13\)/,
    );
    standIn.reset();
    await backend.close();
    standIn.assertNothingHeld();
  });
}

function plainLayer(n: number, k: number): ConformanceCase["build"] {
  return (graph, inputs) => linear(inputs.x!, graph.weight("w", [n, k]));
}

function floatsOf(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}
