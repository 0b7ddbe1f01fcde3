/** The weights of a component: dense, quantized while they load, or quantized before. */

import { test } from "node:test";
import assert from "node:assert/strict";
import type { StoredWeight } from "../../src/backends/backend.ts";
import type { PlanWeight } from "../../src/plan/plan.ts";
import { BitsAndBytesConfig } from "../../src/quantization/bitsandbytes_config.ts";
import { createQuantizer } from "../../src/quantization/auto.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import { layoutBytes, weightBytes } from "../../src/quantization/layout_bytes.ts";
import type { NamedTensor } from "../../src/quantization/quantizer.ts";
import {
  type ComponentWeights,
  openWeights,
  type OpenWeightsOptions,
} from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import type { Shape } from "../../src/tensor/shape.ts";
import {
  assertFails,
  assertSameTensor,
  memoryReader,
  noPause,
  randomValues,
  tensorOf,
} from "./support.ts";

const NF4 = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: "nf4" });
const NESTED = new BitsAndBytesConfig({
  loadIn4bit: true,
  bnb4bitQuantType: "nf4",
  bnb4bitUseDoubleQuant: true,
});
const INT8 = new BitsAndBytesConfig({ loadIn8bit: true, llmInt8Threshold: 5 });
const DIFFUSERS = { _class_name: "FluxTransformer2DModel" };

const DENSE: NamedTensor[] = [
  { name: "layer.weight", tensor: tensorOf(randomValues(96 * 40, 1), [96, 40]) },
  { name: "layer.bias", tensor: tensorOf(randomValues(96, 2), [96], "bfloat16") },
  { name: "proj_out.weight", tensor: tensorOf(randomValues(64, 3), [8, 8], "bfloat16") },
  { name: "norm.weight", tensor: tensorOf(randomValues(40, 4), [40]) },
  { name: "conv.weight", tensor: tensorOf(randomValues(48, 5), [2, 3, 2, 4], "float16") },
  { name: "ids", tensor: HostTensor.zeros("int64", [4]) },
];

function open(
  tensors: NamedTensor[],
  options: Partial<OpenWeightsOptions> = {},
): Promise<ComponentWeights> {
  const linearNames = (name: string) => /^(layer|proj_out)\.weight$/.test(name);
  return openWeights(memoryReader(tensors), { config: DIFFUSERS, linearNames, ...options });
}

function read(
  weights: ComponentWeights,
  name: string,
  shape?: Shape,
  arrangement: PlanWeight["arrangement"] = "rows",
): Promise<StoredWeight> {
  const info = weights.catalog.lookup(name);
  assert.ok(info, name);
  const { format } = info;
  const bytes = weightBytes(info.shape, format);
  return weights.source.read({ name, shape: shape ?? info.shape, format, arrangement, bytes });
}

async function readDense(weights: ComponentWeights, name: string): Promise<HostTensor> {
  const stored = await read(weights, name);
  assert.ok(stored.kind === "dense", name);
  return stored.tensor;
}

async function readQuantized(weights: ComponentWeights, name: string) {
  const stored = await read(weights, name);
  assert.ok(stored.kind === "quantized", name);
  return stored.tensor;
}

test("without a config every weight keeps its type and bytes", async () => {
  const weights = await open(DENSE);
  for (const { name, tensor } of DENSE) {
    assertSameTensor(name, await readDense(weights, name), tensor);
  }
  assert.equal(weights.quantizationConfig, null);
  const bytes = DENSE.reduce((sum, { tensor }) => sum + tensor.bytes.length, 0);
  assert.deepEqual(weights.memory(), { stored: bytes, resident: bytes, scales: 0 });
});

test("a dtype rounds the float weights, not the integers", async () => {
  const weights = await open(DENSE, { dtype: "bfloat16" });
  for (const { name, tensor } of DENSE) {
    const expected = name === "ids" ? tensor : tensor.cast("bfloat16");
    assertSameTensor(name, await readDense(weights, name), expected);
  }
});

test("linear weights are quantized while they load, the others are not", async () => {
  const weights = await open(DENSE, { quantizationConfig: NESTED });
  for (const name of ["layer.weight", "proj_out.weight"]) {
    const tensor = await readQuantized(weights, name);
    const dense = DENSE.find((t) => t.name === name)!.tensor;
    const expected = await createQuantizer(NESTED, { library: "diffusers", keepInFloat32: [] })
      .quantize(name, dense, noPause);
    assert.deepEqual(tensor, expected.tensor);
  }
  for (const name of ["layer.bias", "norm.weight", "conv.weight"]) await readDense(weights, name);
});

test("the catalog tells the layout before a weight is read, and the weight keeps to it", async () => {
  for (const config of [NF4, NESTED, INT8]) {
    const weights = await open(DENSE, { quantizationConfig: config });
    const format = weights.catalog.lookup("layer.weight")?.format;
    assert.ok(format?.kind === "quantized");
    const tensor = await readQuantized(weights, "layer.weight");
    assert.deepEqual(tensor.layout, format.layout);
  }
});

test("the resident bytes are those of the quantized weights with scales and tables", async () => {
  const weights = await open(DENSE, { quantizationConfig: NF4 });
  const tensor = await readQuantized(weights, "layer.weight");
  assert.ok(tensor.scale.kind === "float");
  const layer = tensor.codes.length + tensor.scale.values.bytes.length + 64;
  assert.equal(layoutBytes([96, 40], tensor.layout), layer);
  const rest = 96 * 2 + (32 + 4 + 64) + 40 * 4 + 48 * 2 + 4 * 8;
  assert.equal(weights.memory().resident, layer + rest);
});

test("weights are rounded to the dtype first and quantized then", async () => {
  const weights = await open(DENSE, { quantizationConfig: NF4, dtype: "bfloat16" });
  const rounded = [{ name: "layer.weight", tensor: DENSE[0].tensor.cast("bfloat16") }];
  const expected = await open(rounded, { quantizationConfig: NF4 });
  const tensor = await readQuantized(weights, "layer.weight");
  assert.deepEqual(tensor, await readQuantized(expected, "layer.weight"));
});

test("skipped and kept modules stay dense", async () => {
  const skipping = new BitsAndBytesConfig({ loadIn4bit: true, llmInt8SkipModules: ["proj_out"] });
  const weights = await open(DENSE, { quantizationConfig: skipping, keepInFloat32: ["layer"] });
  assert.equal((await readDense(weights, "proj_out.weight")).dtype, "bfloat16");
  assert.equal((await readDense(weights, "layer.weight")).dtype, "float32");
});

test("a module kept in float32 escapes rounding to float16, and only that", async () => {
  const kept = { keepInFloat32: ["layer"] };
  const half = await open(DENSE, { ...kept, dtype: "float16" });
  assert.equal((await readDense(half, "layer.weight")).dtype, "float32");
  assert.equal((await readDense(half, "norm.weight")).dtype, "float16");
  const brain = await open(DENSE, { ...kept, dtype: "bfloat16" });
  assert.equal((await readDense(brain, "layer.weight")).dtype, "bfloat16");
});

test("int8 linears say how their activations are treated", async () => {
  const weights = await open(DENSE, { quantizationConfig: INT8 });
  const info = weights.catalog.lookup("layer.weight");
  assert.deepEqual(info?.activations, { kind: "llm_int8", threshold: 5 });
  assert.deepEqual(weights.catalog.lookup("norm.weight")?.activations, { kind: "float" });
});

test("a convolution comes with its channels last", async () => {
  const weights = await open(DENSE);
  const stored = await read(weights, "conv.weight", [2, 2, 4, 3], "convolution");
  assert.ok(stored.kind === "dense");
  const [from, to] = [DENSE[4].tensor.toFloat32(), stored.tensor.toFloat32()];
  for (let o = 0; o < 2; o++) {
    for (let c = 0; c < 3; c++) {
      for (let p = 0; p < 8; p++) assert.equal(to[(o * 8 + p) * 3 + c], from[(o * 3 + c) * 8 + p]);
    }
  }
});

/** What a library's checkpoint of the dense one would hold. */
async function encoded(config: BitsAndBytesConfig): Promise<NamedTensor[]> {
  const quantizer = createQuantizer(config, { library: "diffusers", keepInFloat32: [] });
  const [layer, ...others] = DENSE;
  const weight = await quantizer.quantize(layer.name, layer.tensor, noPause);
  return [...quantizer.write(layer.name, weight), ...others];
}

test("a quantized checkpoint is read as it is, with or without a config", async () => {
  for (const config of [NF4, NESTED, INT8]) {
    const tensors = await encoded(config);
    const own = { ...DIFFUSERS, quantization_config: config.toDict() };
    for (const options of [{ config: own }, {}]) {
      const weights = await open(tensors, options);
      assert.equal(weights.preQuantized, true);
      assert.equal(weights.quantizationConfig?.backend, config.backend);
      const tensor = await readQuantized(weights, "layer.weight");
      const expected = await open(DENSE, { quantizationConfig: config });
      assert.deepEqual(tensor, await readQuantized(expected, "layer.weight"));
      assert.equal((await readDense(weights, "proj_out.weight")).dtype, "bfloat16");
      assert.equal(weights.catalog.lookup("layer.weight.absmax"), undefined);
      assert.equal(weights.catalog.lookup("layer.SCB"), undefined);
    }
  }
});

test("a config for a quantized checkpoint only draws a warning", async () => {
  const warnings: string[] = [];
  const weights = await open(await encoded(INT8), {
    quantizationConfig: NF4,
    onWarning: (message) => warnings.push(message),
  });
  assert.equal(weights.quantizationConfig?.backend, "bitsandbytes_8bit");
  assert.equal(warnings.length, 1);
});

test("fp8 vectors are held in bfloat16, which loses nothing", async () => {
  const tensor = tensorOf(randomValues(64, 7), [64], "float8_e4m3fn");
  const weights = await open([{ name: "layer.bias", tensor }]);
  const held = await readDense(weights, "layer.bias");
  assert.equal(held.dtype, "bfloat16");
  assert.deepEqual(held.toFloat32(), tensor.toFloat32());
});

test("a NaN or infinity is found while quantizing, with the tensor's name", async () => {
  for (const value of [NaN, Infinity, -Infinity]) {
    for (const config of [NF4, NESTED, INT8]) {
      const values = randomValues(64, 8);
      values[37] = value;
      const tensors = [{ name: "layer.weight", tensor: tensorOf(values, [8, 8]) }];
      const weights = await open(tensors, { quantizationConfig: config });
      await assertFails(
        () => read(weights, "layer.weight"),
        "non_finite_weight",
        /"layer\.weight".*element 37/s,
      );
    }
  }
});

test("a value beyond float16 is refused where float16 is needed", async () => {
  const tensors = [{ name: "layer.weight", tensor: tensorOf(Float32Array.of(1, 7e4), [1, 2]) }];
  const int8 = await open(tensors, { quantizationConfig: INT8 });
  await assertFails(() => read(int8, "layer.weight"), "non_finite_weight", /float16/);
  const half = await open(tensors, { dtype: "float16" });
  await assertFails(() => read(half, "layer.weight"), "non_finite_weight", /float16/);
});

test("a weight that no file has is missing", async () => {
  const weights = await open(DENSE);
  const format = { kind: "dense", dtype: "float32" } as const;
  const plan = { name: "other.weight", shape: [1], format, arrangement: "rows", bytes: 4 } as const;
  await assertFails(() => weights.source.read(plan), "missing_tensor", /other\.weight/);
});

test("quantizing leaves the checkpoint's tensor as it was", async () => {
  const before = DENSE[0].tensor.bytes.slice();
  const weights = await open(DENSE, { quantizationConfig: NF4 });
  const tensor = await readQuantized(weights, "layer.weight");
  assert.deepEqual(DENSE[0].tensor.bytes, before);
  const error = dequantize(tensor).map((value, i) =>
    Math.abs(value - DENSE[0].tensor.toFloat32()[i])
  );
  assert.ok(Math.max(...error) < 0.16, `error ${Math.max(...error)}`); // half the widest NF4 gap
});
