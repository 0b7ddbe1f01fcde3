/** torchao's configs that round activations; test/goldens/make_torchao_activation_goldens.py made the goldens. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type BackendOptions, createBackend } from "../../src/backends/select.ts";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { quantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import type { QuantizedActivations } from "../../src/ops/activation_mode.ts";
import { linear } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { TorchAoConfig } from "../../src/quantization/torchao_config.ts";
import {
  Float8DynamicActivationFloat8WeightConfig,
  Int8DynamicActivationInt8WeightConfig,
  Int8StaticActivationInt8WeightConfig,
} from "../../src/quantization/torchao_dynamic.ts";
import type { TorchAoQuantType } from "../../src/quantization/torchao_types.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { backendsHere } from "../backends/backends_here.ts";
import { roundedActivations } from "../backends/conformance/rounded_activations.ts";
import { inFolder } from "../io/support.ts";
import {
  assertRoundTrip,
  checkpointHashes,
  type MethodCase,
  quantizerInputs,
  quantizerOf,
  readerOf,
  shortHash,
} from "./method_support.ts";
import { assertFails, GOLDENS, noPause, readGolden } from "./support.ts";

interface Layer {
  readonly input: string;
  readonly rounded: string;
  readonly y: string;
}

interface Goldens {
  readonly cases: MethodCase[];
  readonly headers: Record<string, string>;
  readonly configs: Record<string, Record<string, unknown>>;
  readonly outputs: { readonly x: string; readonly layers: Record<string, Layer> };
  readonly models: Record<string, {
    readonly sha256: Record<string, string>;
    readonly metadata: Record<string, string>;
    readonly quantization_config: Record<string, unknown>;
  }>;
}

const goldens = await readGolden<Goldens>("torchao_activations.json");
const inputs = await quantizerInputs();
const SOURCE = `${GOLDENS}pipelines/dev/transformer`;

/** torchao has no dictionary of a static config with its scale. */
const STATIC: Readonly<Record<string, TorchAoQuantType>> = {
  int8static: new Int8StaticActivationInt8WeightConfig({ actQuantScale: 0.03 }),
  int8static_asymmetric: new Int8StaticActivationInt8WeightConfig({
    actQuantScale: 0.02,
    actQuantZeroPoint: -31,
    actMappingType: "ASYMMETRIC",
  }),
};

function configOf(scheme: string): TorchAoConfig {
  if (scheme in STATIC) return new TorchAoConfig({ quantType: STATIC[scheme] });
  return TorchAoConfig.fromDict({ quant_type: { default: goldens.configs[scheme] } });
}

function floats(text: string): Float32Array {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

const [ROWS, COLUMNS] = [6, 128];
const X = floats(goldens.outputs.x);
/** In torchao a float8 row of zeros is NaN. */
const ZERO_ROW = 4;

test("weights whose activations are rounded have torchao's tensors", async () => {
  let equal = 0;
  for (const { input, scheme, sha256 } of goldens.cases) {
    const dense = inputs.get(input)!;
    const quantizer = quantizerOf(configOf(scheme));
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const written = quantizer.write("m.weight", weight);
    const found = Object.fromEntries(
      written.map(({ name, tensor }) => [name.replace("m._weight_", ""), shortHash(tensor.bytes)]),
    );
    assert.deepEqual(found, sha256, `${input} ${scheme}`);
    equal += written.length;
    await assertRoundTrip(quantizer, "m.weight", dense, weight);
  }
  assert.ok(equal > 250, `${equal} tensors`);
});

test("the header says how torchao rounds activations", () => {
  const { shape, dtype } = inputs.get("weights.bfloat16")!;
  for (const [scheme, header] of Object.entries(goldens.headers)) {
    const quantizer = quantizerOf(configOf(scheme));
    const metadata = quantizer.fileMetadata!([{ name: "0.weight", shape, dtype, quantized: true }]);
    assert.equal(metadata["0.weight"], header, scheme);
  }
});

test("config objects that round activations give torchao's dictionaries back", () => {
  for (const [scheme, dict] of Object.entries(goldens.configs)) {
    const json = JSON.parse(JSON.stringify(configOf(scheme)));
    assert.deepEqual(json.quant_type, { default: dict }, scheme);
  }
});

test("activations are rounded to the bits of torchao", () => {
  for (const [scheme, { input, rounded }] of Object.entries(goldens.outputs.layers)) {
    const info = quantizerOf(configOf(scheme)).describe(inputs.get(input)!.shape, "float32");
    const mode = info!.activations as QuantizedActivations;
    const { data } = roundedActivations({ rows: ROWS, columns: COLUMNS, data: X }, mode);
    const expected = floats(rounded);
    Float32Array.from(data).forEach((value, index) => {
      const isZeroOverZero = Number.isNaN(expected[index]);
      assert.ok(!isZeroOverZero || Math.floor(index / COLUMNS) === ZERO_ROW, scheme);
      // -0 and 0 are one value: torchao's integers know no sign of zero.
      assert.equal(value + 0, isZeroOverZero ? 0 : expected[index] + 0, `${scheme} ${index}`);
    });
  }
});

async function runLayer(
  options: BackendOptions,
  scheme: string,
): Promise<Float32Array> {
  const dense = inputs.get(goldens.outputs.layers[scheme].input)!;
  const quantizer = quantizerOf(configOf(scheme));
  const { tensor } = await quantizer.quantize("w", dense, noPause);
  const info = quantizer.describe(dense.shape, dense.dtype)!;
  const backend = await createBackend({ ...options, threads: 2, strict: true });
  try {
    const graph = new Graph("test", { lookup: () => info });
    const w = graph.weight("w", dense.shape);
    graph.output("y", linear(graph.input("x", [ROWS, COLUMNS]), w));
    const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
    const source = { read: () => Promise.resolve({ kind: "quantized", tensor } as const) };
    const program = await backend.compile(plan, await backend.loadWeights(plan.weights, source));
    program.write("x", HostTensor.fromFloat32(X, [ROWS, COLUMNS]));
    await program.run();
    return program.read("y").toFloat32();
  } finally {
    await backend.close();
  }
}

/** The largest difference over the largest value: sums of 128 products in float32, in another order. */
const TOLERANCE = 1e-6;

for (const options of backendsHere("torchao_activations")) {
  test(`linear layers on ${options.backend} give what torchao's own forward gives`, async () => {
    for (const [scheme, { y }] of Object.entries(goldens.outputs.layers)) {
      const found = await runLayer(options, scheme);
      const expected = floats(y).map((value) => Number.isNaN(value) ? 0 : value);
      const largest = Math.max(...expected.map(Math.abs));
      expected.forEach((value, index) => {
        const error = Math.abs(found[index] - value) / largest;
        assert.ok(error <= TOLERANCE, `${scheme} ${index}: ${error}`);
      });
    }
  });
}

for (const [scheme, model] of Object.entries(goldens.models)) {
  test(`a transformer quantized to ${scheme} is what Diffusers saves, and opens with its modes`, async () => {
    await inFolder(async (folder) => {
      const linearNames = (name: string) =>
        name.endsWith(".weight") && !/norm_(added_)?[qk]\.weight$/.test(name);
      await quantizeCheckpoint(SOURCE, folder, {
        quantizationConfig: TorchAoConfig.fromDict(model.quantization_config),
        linearNames,
        dtype: "bfloat16",
      });
      const { hashes, metadata } = await checkpointHashes(folder);
      assert.deepEqual(hashes, model.sha256);
      const { tensor_names: names, ...described } = metadata;
      const { tensor_names: expectedNames, ...expected } = model.metadata;
      assert.deepEqual(described, expected);
      assert.deepEqual(JSON.parse(names).sort(), JSON.parse(expectedNames).sort());
      await assertModes(folder, linearNames, TorchAoConfig.fromDict(model.quantization_config));
    });
  });
}

/** Every weight of a saved folder is rounded as the config says; without the config in config.json too. */
async function assertModes(
  folder: string,
  linearNames: (name: string) => boolean,
  expected: TorchAoConfig,
): Promise<void> {
  const { quantization_config: own, ...bare } = await readConfig(folder);
  const checkpoint = await openCheckpoint(folder);
  try {
    for (const config of [{ ...bare, quantization_config: own }, bare]) {
      const { catalog, quantizationConfig } = await openWeights(checkpoint, {
        config,
        linearNames,
      });
      const found = (quantizationConfig as TorchAoConfig).quantType;
      assert.deepEqual(found.activations, expected.quantType.activations);
      const name = "transformer_blocks.0.attn.to_q.weight";
      const info = catalog.lookup(name)!;
      const described = quantizerOf(expected).describe(info.shape, "bfloat16")!;
      assert.deepEqual(info.activations, described.activations);
    }
  } finally {
    await checkpoint.close();
  }
}

test("the names Diffusers took mean what they meant", () => {
  const typeOf = (name: string, quantTypeKwargs = {}) =>
    JSON.parse(
      JSON.stringify(new TorchAoConfig({ quantType: name, quantTypeKwargs }).quantType.toDict()),
    );
  assert.deepEqual(typeOf("int8dq"), goldens.configs.int8dq);
  assert.deepEqual(typeOf("int8_dynamic_activation_int8_weight"), goldens.configs.int8dq);
  assert.deepEqual(typeOf("int4dq"), goldens.configs.int4dq);
  assert.deepEqual(typeOf("int4dq", { group_size: 64 })._data.weight_granularity._data, {
    group_size: 64,
  });
  for (const name of ["float8dq", "float8dq_e4m3", "float8dq_e4m3_tensor"]) {
    assert.deepEqual(typeOf(name), goldens.configs.float8dq);
  }
  assert.deepEqual(typeOf("float8dq_e4m3_row"), goldens.configs.float8dq_e4m3_row);
});

test("a layer whose sizes 16 does not divide stays dense in float8dq, as in torchao", () => {
  const quantizer = quantizerOf(configOf("float8dq"));
  assert.equal(quantizer.describe([24, 64], "bfloat16"), null);
  assert.notEqual(quantizer.describe([32, 64], "bfloat16"), null);
});

test("static scales are read with the weight, and weights without one cannot be made", async () => {
  const dense = inputs.get("weights.float32")!;
  const quantizer = quantizerOf(configOf("int8static_asymmetric"));
  const weight = await quantizer.quantize("m.weight", dense, noPause);
  const reader = readerOf(quantizer, "m.weight", dense, quantizer.write("m.weight", weight));
  const { activations } = await quantizer.describeStored("m.weight", reader);
  assert.deepEqual(activations, quantizer.describe(dense.shape, "float32")!.activations);
  const bare = quantizerOf(
    new TorchAoConfig({ quantType: new Int8StaticActivationInt8WeightConfig() }),
  );
  await assertFails(
    () => bare.quantize("m.weight", dense, noPause),
    "quantization_config",
    /act_quant_scale/,
  );
});

test("options that torchao refuses are refused", () => {
  const bad: readonly [() => unknown, RegExp][] = [
    [
      () => new Int8DynamicActivationInt8WeightConfig({ granularity: "column" as "row" }),
      /granularity/,
    ],
    [
      () => new Int8DynamicActivationInt8WeightConfig({ actMappingType: "NO" as "SYMMETRIC" }),
      /act_map/,
    ],
    [
      () => new Float8DynamicActivationFloat8WeightConfig({ activationDtype: "int8" as never }),
      /activation_d/,
    ],
    [
      () => new Float8DynamicActivationFloat8WeightConfig({ activationValueLb: -1 }),
      /activation_value_lb/,
    ],
    [() => new Int8StaticActivationInt8WeightConfig({ actQuantScale: 0 }), /act_quant_scale/],
    [() => new Int8StaticActivationInt8WeightConfig({ granularity: "row" }), /granularity/],
    [() => new Int8StaticActivationInt8WeightConfig({ actQuantZeroPoint: 200 }), /zero_point/],
  ];
  for (const [make, pattern] of bad) {
    assert.throws(make, (error: Error) => {
      return "code" in error && error.code === "quantization_config" && pattern.test(String(error));
    });
  }
});

test("metadata of another rounding is refused by name", async () => {
  const dense = inputs.get("weights.float32")!;
  const quantizer = quantizerOf(configOf("int8dq"));
  const weight = await quantizer.quantize("m.weight", dense, noPause);
  const reader = readerOf(quantizer, "m.weight", dense, quantizer.write("m.weight", weight));
  const changes: readonly [string, string, RegExp][] = [
    ["QuantizeTensorToInt8Kwargs", "QuantizeTensorToMXKwargs", /act_quant_kwargs/],
    [
      '"PerRow", "_data": {"dim": -1}',
      '"PerBlock", "_data": {"block_size": [1, 128]}',
      /granularity/,
    ],
    [
      '"QuantizeTensorToInt8Kwargs", "_data": {',
      '"QuantizeTensorToFloat8Kwargs", "_data": {"hp_value_lb": 1e300, "float8_dtype": "float8_e5m2", ',
      /hp_value_lb/,
    ],
    ['"_data": "SYMMETRIC"', '"_data": "SYMMETRIC_NO_CLIPPING_ERR"', /mapping_type/],
  ];
  for (const [from, to, pattern] of changes) {
    const text = reader.metadata!["m.weight"];
    assert.ok(text.includes(from));
    const metadata = { "m.weight": text.replace(from, to) };
    const read = () => quantizer.describeStored("m.weight", { ...reader, metadata });
    await assertFails(read, "unsupported", pattern);
  }
});
