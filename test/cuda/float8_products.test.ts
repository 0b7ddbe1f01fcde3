/** Layers over float8 activations and weights on cuBLASLt's stand-in: who applies the scales, and what is left to us. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import type { MatmulPrecision } from "../../src/backends/cuda/matmul_precision.ts";
import type { QuantizedActivations } from "../../src/ops/activation_mode.ts";
import { linear } from "../../src/ops/builders.ts";
import {
  type ConformanceCase,
  floats,
  judge,
  narrowed,
  runCase,
} from "../backends/conformance/cases.ts";
import type { TestFormat } from "../backends/conformance/formats.ts";
import type { Ending } from "../backends/conformance/weight_cases.ts";
import {
  activations,
  ADDED,
  BY_ROW,
  BY_TENSOR,
  FLOAT8_FORMATS,
  float8Cases,
  format,
  layer,
  PLAIN,
  ROW,
  STATIC,
  TENSOR,
} from "./float8_cases.ts";
import { failsWith, openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("float8_products");
if (typeof standIn === "string") {
  console.log(`cuda: products of float8 are skipped: ${standIn}`);
  test("cuda on the stand-in: products of float8", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  const { libraries } = standIn;

  /** What cases give, and how many products of float8 and launches of our kernels they took. */
  async function run(
    asked: readonly ConformanceCase[],
    matmulPrecision: MatmulPrecision = "bfloat16",
    judged = true,
    isWarm = false,
  ) {
    const backend = await createCudaBackend({ ...libraries, matmulPrecision });
    // Kinds of products that are new are tried, and run before graphs are captured.
    for (const testCase of isWarm ? asked : []) await runCase(backend, testCase);
    const count = () => (["float8Products", "launches", "products"] as const).map(standIn.count);
    const before = count();
    const outputs: Float32Array[] = [];
    for (const testCase of asked) {
      const found = await runCase(backend, testCase);
      if (judged) assert.equal(judge(testCase, found), null);
      outputs.push(found.toFloat32());
    }
    const [products, launches, all] = count().map((value, i) => value - before[i]!);
    await backend.close();
    return { outputs, products: products!, launches: launches!, all: all! };
  }

  const refusals: readonly [name: string, refuseProducts: number, products: boolean][] = [
    ["of cuBLASLt are those of the codes and scales", 0, true],
    ["whose scales cuBLASLt refuses get ours", 1, true],
    ["that cuBLASLt refuses are ours", 3, false],
    ["that cuBLASLt has never heard of are ours", 4, false],
  ];
  for (const [name, refuseProducts, byLibrary] of refusals) {
    test(`float8 products ${name}`, async () => {
      const asked = float8Cases();
      standIn.set({ refuseProducts });
      const { products } = await run(asked);
      standIn.reset();
      if (!byLibrary) return assert.equal(products, 0);
      // One in the run, and one before graphs are captured where its kind is new.
      assert.ok(products >= asked.length && products <= 2 * asked.length);
    });
  }

  // Rounding is one launch of ours, two where all of x shares a scale found from it; the end is one more.
  const NEW = { libraryVersion: 120900, capability: 90 };
  const OLD = { libraryVersion: 120001, capability: 89 };
  const scalings: readonly [
    name: string,
    Parameters<StandIn["set"]>[0],
    QuantizedActivations,
    TestFormat,
    Ending,
    launches: number,
    isAskew?: boolean,
  ][] = [
    ["a scale for each row of both is the library's", NEW, ROW, BY_ROW, PLAIN, 1],
    ["so it is with something added", NEW, ROW, BY_ROW, ADDED, 1],
    ["with something askew in memory added it is ours", NEW, ROW, BY_ROW, ADDED, 2, true],
    ["with a scale of all activations", NEW, TENSOR, BY_ROW, PLAIN, 2],
    ["with one known before", NEW, STATIC, BY_ROW, PLAIN, 1],
    ["before CUDA 12.9 it is ours", { ...NEW, libraryVersion: 120899 }, ROW, BY_ROW, PLAIN, 2],
    ["before any scales of rows", OLD, ROW, BY_ROW, PLAIN, 2],
    ["and before Hopper", { ...NEW, capability: 89 }, ROW, BY_ROW, PLAIN, 2],
    ["one scale for all of both is the library's on any", OLD, STATIC, BY_TENSOR, PLAIN, 1],
    ["also where it is found at every run", OLD, TENSOR, BY_TENSOR, ADDED, 2],
    ["a scale for each row of one side is ours", NEW, ROW, BY_TENSOR, PLAIN, 2],
    ["scales of another type are ours", NEW, ROW, FLOAT8_FORMATS[3]!, PLAIN, 2],
    ["scales with a factor are ours", NEW, ROW, FLOAT8_FORMATS[4]!, PLAIN, 2],
    ["scales that rows share are ours", NEW, ROW, FLOAT8_FORMATS[2]!, PLAIN, 2],
  ];
  for (const [name, settings, mode, weight, ending, expected, isAskew = false] of scalings) {
    test(`float8 scales: ${name}`, async () => {
      standIn.set(settings);
      const seeds = Array.from({ length: 50 }, (_, i) => 72000 + i);
      const testCase = seeds.map((seed) => layer(mode, weight, ending, seed))
        .find(({ inputs }) => (inputs.residual?.shape[1] ?? 48) === (isAskew ? 53 : 48))!;
      const alone = { ...testCase, build: layerAlone(testCase, ending) };
      const { launches, products } = await run([alone], "bfloat16", true, true);
      standIn.reset();
      assert.deepEqual([launches, products], [expected, 1]);
    });
  }

  const biased: readonly [name: string, QuantizedActivations, TestFormat, refused: number][] = [
    ["each row", ROW, BY_ROW, 0],
    ["all", STATIC, BY_TENSOR, 0],
    ["each row, refused,", ROW, BY_ROW, 1],
  ];
  for (const [name, mode, weight, refuseProducts] of biased) {
    test(`float8 products with a scale for ${name} and a bias of bfloat16`, async () => {
      standIn.set({ ...NEW, refuseProducts });
      const ending = { ...PLAIN, bias: true };
      const testCase = layer(mode, weight, ending, 72100);
      const backend = await createCudaBackend({ ...libraries, matmulPrecision: "bfloat16" });
      const kernels: string[] = [];
      const enqueue = backend.enqueue.bind(backend);
      backend.enqueue = (launch) => {
        if (launch.kind === "kernel") kernels.push(launch.kernel);
        enqueue(launch);
      };
      const found = await runCase(backend, { ...testCase, build: layerAlone(testCase, ending) });
      await backend.close();
      standIn.reset();
      assert.equal(judge(testCase, found), null);
      const end = refuseProducts === 0 ? "narrow_bfloat16" : "end_float8";
      assert.deepEqual(kernels, ["round_rows", end]);
    });
  }

  const floating: readonly [
    name: string,
    Parameters<StandIn["set"]>[0],
    ConformanceCase,
    MatmulPrecision,
  ][] = [
    ["in float32 precision", {}, layer(ROW, BY_ROW, PLAIN, 73000), "float32"],
    ["before Ada", { capability: 86 }, layer(ROW, BY_ROW, PLAIN, 73001), "tensorfloat32"],
    [
      "with a depth that is no multiple of 16",
      {},
      layer(ROW, BY_ROW, PLAIN, 73002, { m: 66, n: 48, k: 40 }),
      "tensorfloat32",
    ],
    [
      "with columns that are no multiple of 16",
      {},
      layer(ROW, BY_ROW, PLAIN, 73003, { m: 66, n: 40, k: 48 }),
      "tensorfloat32",
    ],
    [
      "with activations of another float8",
      {},
      layer(activations("float8_e5m2", "row"), BY_ROW, PLAIN, 73004),
      "tensorfloat32",
    ],
    [
      "with a weight of another float8",
      {},
      layer(ROW, format(1, undefined, "float8_e5m2"), PLAIN, 73005),
      "tensorfloat32",
    ],
    ["of few rows", {}, layer(ROW, BY_ROW, PLAIN, 73006, { m: 64, n: 48, k: 48 }), "tensorfloat32"],
  ];
  for (const [name, settings, testCase, precision] of floating) {
    test(`layers over float8 activations stay floats ${name}`, async () => {
      standIn.set(settings);
      // Only float32 promises all digits; the other's result is that of rounded operands.
      const { products, all } = await run([testCase], precision, precision === "float32");
      standIn.reset();
      // Of few rows the weight is read as it is stored, by a kernel of ours.
      assert.deepEqual([products, all > 0], [0, name !== "of few rows"]);
    });
  }

  test("a NaN makes its row of a float8 product NaN, and no other", async () => {
    const [m, n, k] = [70, 16, 32];
    const x = Float32Array.from({ length: m * k }, (_, i) => Math.cos(i));
    x[33 * k + 7] = NaN;
    for (const mode of [ROW, STATIC]) {
      const { outputs: [found] } = await run(
        [{
          ...layer(mode, BY_ROW, PLAIN, 74000, { m: 1, n, k }),
          inputs: { x: floats(x, [m, k]) },
          build: (graph, inputs) => linear(inputs.x!, graph.weight("w", [n, k])),
        }],
        "bfloat16",
        false,
      );
      found!.forEach((y, i) => assert.equal(Number.isNaN(y), Math.floor(i / n) === 33));
    }
  });

  test("a float8 product that fails is an error in the library's words, and nothing stays", async () => {
    const backend = await createCudaBackend({ ...libraries, matmulPrecision: "float16" });
    standIn.set({ failProduct: 2 }); // the first is a known one
    await failsWith(
      runCase(backend, layer(ROW, BY_ROW, PLAIN, 75000)),
      "backend_failed",
      /Cannot multiply matrices \[66, 96\] and \[48, 96\].*CUBLAS_STATUS_EXECUTION_FAILED \(13\)/,
    );
    standIn.reset();
    await backend.close();
    standIn.assertNothingHeld();
  });
}

/** A case's layer alone: no launch but those of the layer. */
function layerAlone({ weights }: ConformanceCase, { bias }: Ending): ConformanceCase["build"] {
  return (graph, { x, residual }) => {
    const [n, k] = weights!.lookup("w")!.shape as [number, number];
    const [m, width] = x!.shape as [number, number];
    const weight = graph.weight("w", [n, k]);
    const given = x!.slice(1, width - k, width);
    const added = residual && residual.shape[1] !== n ? narrowed(residual) : residual ?? null;
    const operands = [given, weight, bias ? graph.weight("b", [n]) : null, null, added];
    const attributes = { activation: "identity", activations: weight.activations } as const;
    return graph.add("linear", attributes, operands, graph.allocate([m, n]));
  };
}
