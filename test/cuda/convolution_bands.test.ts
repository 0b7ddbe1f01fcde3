/** Convolutions band by band: each band is the convolution of the rows that it names. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { convolutionBands } from "../../src/backends/cuda/convolution_bands.ts";
import { RoundedRegion } from "../../src/backends/cuda/rounded_region.ts";
import { ConstantPool } from "../../src/backends/cuda/constant_pool.ts";
import { encodePlan } from "../../src/backends/cuda/encode.ts";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import * as evaluate from "../backends/conformance/evaluator.ts";
import { compare } from "../backends/conformance/cases.ts";
import { Random } from "../backends/conformance/random.ts";
import { ERROR_BUDGETS } from "../backends/error_budgets.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { openStandIn } from "./stand_in.ts";
import { operandRounding } from "./rounding.ts";

const WIDTH = 3, CHANNELS = 4;

test("the bands of a convolution are its rows", () => {
  const random = new Random(1);
  for (let round = 0; round < 200; round++) {
    const [height, kernel, stride] = [
      random.integer(4, 20),
      random.integer(1, 4),
      random.integer(1, 3),
    ];
    const [top, bottom] = [random.integer(0, kernel - 1), random.integer(0, kernel - 1)];
    const output = Math.floor((height + top + bottom - kernel) / stride) + 1;
    const most = random.integer(1, output + 2);
    const attributes = { kernel, stride, upsample: 1, padding: [top, 1, bottom, 1] } as const;
    const values = () =>
      Float64Array.from({ length: height * WIDTH * CHANNELS }, () => random.normal());
    const image = { height, width: WIDTH, channels: CHANNELS, data: values() };
    const weight = Float64Array.from({ length: CHANNELS * kernel ** 2 }, () => random.normal());
    const bands = convolutionBands({ input: height, output, kernel, stride, top }, most);
    assert.ok(bands.every(({ count }) => count >= 1 && count <= most));
    const found = bands.flatMap(({ from, to, top, bottom }) => {
      const data = image.data.slice(from * WIDTH * CHANNELS, to * WIDTH * CHANNELS);
      const part = { ...image, height: to - from, data };
      return [
        ...evaluate.convolution(part, weight, 1, { ...attributes, padding: [top, 1, bottom, 1] }),
      ];
    });
    assert.deepEqual(found, [...evaluate.convolution(image, weight, 1, attributes)]);
  }
});

test("a picture has room in a grid when it has more than 65,535 tiles of pixels", () => {
  const [height, width] = [4100, 4100];
  const graph = new Graph("large picture", { lookup: () => undefined });
  const picture = graph.input("x", [height, width, 1]);
  const weight = graph.input("w", [2, 1]);
  const attributes = {
    kernel: 1,
    stride: 1,
    padding: [0, 0, 0, 0],
    upsample: 1,
    activation: "identity",
  } as const;
  const output = graph.allocate([height, width, 2]);
  graph.output("y", graph.add("conv2d", attributes, [picture, weight, null, null], output));
  const plan = buildPlan(graph, { supports: () => true });
  const products = { precision: "float32", library: null, dnn: null } as const;
  const { steps: [[launch] = []] } = encodePlan(plan, {
    arena: 0,
    stepScratch: 0,
    fault: 0,
    weights: { unit: () => 0 },
    isExactIn: () => false,
    constants: new ConstantPool(0),
    products,
    rounded: new RoundedRegion(plan, products, 0),
    hasSignedCodes: false,
  });
  assert.ok(launch?.kind === "kernel" && launch.grid[0] > 65535);
  assert.deepEqual(launch.grid, [Math.ceil(height * width / 64), 1, 1]);
});

const standIn = openStandIn("convolution_bands");
const skip = typeof standIn === "string" ? standIn : false;
if (skip) console.log(`cuda: bands of convolutions are skipped: ${skip}`);

test(
  "a convolution of several bands is the whole one, upsampled and with a residual",
  { skip },
  async () => {
    if (typeof standIn === "string") return;
    const backend = await createCudaBackend({ ...standIn.libraries, matmulPrecision: "bfloat16" });
    const before = standIn.count("operations");
    const [height, width] = [500, 2048];
    const random = new Random(2);
    const normals = (length: number) => Float32Array.from({ length }, () => random.normal());
    const x = normals(height * width * CHANNELS), weight = normals(9 * CHANNELS);
    const residual = normals(height * width);
    const attributes = { kernel: 3, stride: 2, padding: [1, 1, 1, 1], upsample: 2 } as const;
    const graph = new Graph("bands", { lookup: () => undefined });
    const inputs = [
      graph.input("x", [height, width, CHANNELS]),
      graph.input("weight", [1, 9 * CHANNELS]),
      null,
      graph.input("residual", [height, width, 1]),
    ];
    const output = graph.allocate([height, width, 1]);
    graph.output(
      "y",
      graph.add("conv2d", { ...attributes, activation: "identity" }, inputs, output),
    );
    const plan = buildPlan(graph, { supports: () => true });
    const weights = await backend.loadWeights(plan.weights, { read: () => Promise.reject() });
    const program = await backend.compile(plan, weights);
    program.write("x", HostTensor.fromFloat32(x, [height, width, CHANNELS]));
    program.write("weight", HostTensor.fromFloat32(weight, [1, 9 * CHANNELS]));
    program.write("residual", HostTensor.fromFloat32(residual, [height, width, 1]));
    await program.run();
    const found = program.read("y").toFloat32();
    await backend.close();
    assert.ok(standIn.count("operations") - before >= 4, "one run and one before it, of two bands");
    const round = operandRounding("bfloat16")!;
    const image = { height, width, channels: CHANNELS, data: Float64Array.from(x).map(round) };
    // [1, kernel, kernel, channels] as the backend has it, [1, channels, kernel, kernel] as in a checkpoint.
    const filter = Float64Array.from(
      { length: 9 * CHANNELS },
      (_, i) => round(weight[i % 9 * CHANNELS + Math.floor(i / 9)]!),
    );
    const sums = evaluate.convolution(image, filter, 1, attributes);
    const expected = sums.map((sum, i) => sum + residual[i]!);
    const { nmse, maxAbs } = compare(found, expected);
    const budget = ERROR_BUDGETS["conv2d/bfloat16"];
    assert.ok(nmse <= budget.nmse && maxAbs <= budget.maxAbs, `NMSE ${nmse}, largest ${maxAbs}`);
  },
);
