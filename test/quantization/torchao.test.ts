/** Bytes against torchao itself; test/goldens/make_torchao_goldens.py made the hashes. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readConfig } from "../../src/io/checkpoint.ts";
import {
  dequantizeCheckpoint,
  isQuantizedCheckpoint,
  quantizeCheckpoint,
} from "../../src/io/quantize_checkpoint.ts";
import { unpackCodes } from "../../src/quantization/codes.ts";
import { quantizeFormats } from "../../src/quantization/formats.ts";
import { TorchAoConfig } from "../../src/quantization/torchao_config.ts";
import { ZERO_POINT } from "../../src/quantization/torchao_schemes.ts";
import { Int8WeightOnlyConfig } from "../../src/quantization/torchao_types.ts";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import { inFolder } from "../io/support.ts";
import {
  assertRoundTrip,
  checkpointHashes,
  dequantized,
  type MethodCase,
  quantizerInputs,
  quantizerOf,
  shortHash,
} from "./method_support.ts";
import { assertFails, GOLDENS, noPause, readGolden } from "./support.ts";

interface Model {
  readonly sha256: Record<string, string>;
  readonly metadata: Record<string, string>;
  readonly quantization_config: Record<string, unknown>;
}

interface Goldens {
  readonly cases: MethodCase[];
  readonly configs: Record<string, Record<string, unknown>>;
  readonly headers: Record<string, string>;
  readonly models: Record<string, Model>;
}

const goldens = await readGolden<Goldens>("torchao.json");
const legacy = await readGolden<{ cases: MethodCase[] }>("torchao_legacy.json");
const inputs = await quantizerInputs();
const SOURCE = `${GOLDENS}pipelines/dev/transformer`;

function configOf(scheme: string): TorchAoConfig {
  return TorchAoConfig.fromDict({ quant_type: { default: goldens.configs[scheme] } });
}

/** torchao divides zero by a scale of zero here and stores NaN; we store zeros. */
function isNaNInTorchao({ input, scheme }: MethodCase): boolean {
  return scheme.startsWith("float8") && /^(zeros|tiny)\./.test(input) &&
    (input.startsWith("zeros") || input.endsWith(".float16"));
}

test("every format's tensors and dequantized weights equal torchao's", async () => {
  let equal = 0, excepted = 0;
  for (const golden of goldens.cases) {
    const dense = inputs.get(golden.input)!;
    const quantizer = quantizerOf(configOf(golden.scheme));
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const parts = new Map(
      quantizer.write("m.weight", weight).map((t) => [t.name.replace("m._weight_", ""), t.tensor]),
    );
    parts.set("dequantized", dequantized(quantizer, weight));
    if (isNaNInTorchao(golden)) {
      excepted++;
      assert.ok(
        dequantized(quantizer, weight).toFloat32().every((value) => Number.isFinite(value)),
      );
      continue;
    }
    for (const [part, hash] of Object.entries(golden.sha256)) {
      const found = parts.get(part);
      assert.ok(found, `${golden.input} ${golden.scheme}: ${part}`);
      assert.equal(shortHash(found.bytes), hash, `${golden.input} ${golden.scheme}: ${part}`);
      equal++;
    }
    await assertRoundTrip(quantizer, "m.weight", dense, weight);
  }
  assert.ok(equal > 2900, `${equal} tensors`);
  assert.ok(excepted <= 12, `${excepted} exceptions`);
});

test("small floats have the codes, scales and weights of torchao 0.13", async () => {
  let equal = 0;
  for (const { input, scheme, sha256 } of legacy.cases.filter((c) => c.scheme.startsWith("fp"))) {
    if (/^(zeros|tiny)\.float16/.test(input)) continue; // its scale is zero, and the codes of 0 / 0 garbage
    const dense = inputs.get(input)!;
    const quantizer = quantizerOf(new TorchAoConfig({ quantType: scheme }));
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const { codes, layout, scale } = weight.tensor;
    assert.ok(scale.kind === "float");
    const found = {
      codes: unpackCodes(codes, layout.bits, dense.size),
      scale: scale.values.bytes,
      dequantized: dequantized(quantizer, weight).bytes,
    };
    for (const part of ["codes", "scale", "dequantized"] as const) {
      assert.equal(shortHash(found[part]), sha256[part], `${input} ${scheme}: ${part}`);
      equal++;
    }
    await assertRoundTrip(quantizer, "m.weight", dense, weight);
  }
  assert.ok(equal >= 400, `${equal} tensors`);
});

test("uint formats are torchao 0.13's with the codes counted from the middle", async () => {
  let equal = 0;
  for (const { input, scheme, sha256 } of legacy.cases.filter((c) => c.scheme.startsWith("uint"))) {
    // The least scale was 2^-23; now it is the smallest normal number, 2^-14 in float16.
    if (/^(zeros|tiny)\.|^(mixed|spread|weights)\.float16/.test(input)) continue;
    const dense = inputs.get(input)!;
    const quantizer = quantizerOf(new TorchAoConfig({ quantType: scheme }));
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const { codes, layout, scale } = weight.tensor;
    const middle = 2 ** (layout.bits - 1);
    const zero = weight.verbatim!.get(ZERO_POINT)!.toFloat32();
    assert.ok(scale.kind === "float");
    const found: Record<string, Uint8Array> = {
      codes: unpackCodes(codes, layout.bits, dense.size),
      scale: scale.values.bytes,
      zero_point: Uint8Array.from(zero, (value) => value + middle),
      dequantized: dequantized(quantizer, weight).bytes,
    };
    for (const [part, bytes] of Object.entries(found)) {
      assert.equal(shortHash(bytes), sha256[part], `${input} ${scheme}: ${part}`);
      equal++;
    }
  }
  assert.ok(equal >= 500, `${equal} tensors`);
});

test("the header describes every class as torchao does", () => {
  const { shape, dtype } = inputs.get("normal.bfloat16")!;
  for (const [scheme, header] of Object.entries(goldens.headers)) {
    const quantizer = quantizerOf(configOf(scheme));
    const metadata = quantizer.fileMetadata!([{ name: "0.weight", shape, dtype, quantized: true }]);
    assert.equal(metadata["0.weight"], header, scheme);
    assert.equal(metadata.tensor_names, '["0.weight"]');
  }
});

test("config objects give torchao's dictionaries back", () => {
  for (const [scheme, dict] of Object.entries(goldens.configs)) {
    assert.deepEqual(configOf(scheme).toDict().quant_type, { default: dict }, scheme);
  }
});

for (const [scheme, model] of Object.entries(goldens.models)) {
  test(`a transformer quantized to ${scheme} has the tensors and metadata Diffusers saves`, async () => {
    await inFolder(async (folder) => {
      await quantizeCheckpoint(SOURCE, folder, {
        quantizationConfig: TorchAoConfig.fromDict(model.quantization_config),
        linearNames: (name) =>
          name.endsWith(".weight") && !/norm_(added_)?[qk]\.weight$/.test(name),
        dtype: "bfloat16",
      });
      const { hashes, metadata } = await checkpointHashes(folder);
      assert.deepEqual(hashes, model.sha256);
      const { tensor_names: names, ...described } = metadata;
      const { tensor_names: expectedNames, ...expected } = model.metadata;
      assert.deepEqual(described, expected);
      assert.deepEqual(JSON.parse(names).sort(), JSON.parse(expectedNames).sort());
      const config = await readConfig(folder);
      assert.deepEqual(config.quantization_config, model.quantization_config);
    });
  });
}

for (const name of ["int8wo", "int4wo", "uint3wo", "float8wo_e5m2", "fp6"]) {
  test(`a checkpoint in ${name} is read, detected without its config, and dequantized`, async () => {
    await inFolder(async (folder) => {
      const [quantized, dense] = [`${folder}/quantized.safetensors`, `${folder}/dense`];
      const file = `${SOURCE}/diffusion_pytorch_model.safetensors`;
      const quantizationConfig = new TorchAoConfig({
        quantType: name,
        quantTypeKwargs: /int4|uint/.test(name) ? { group_size: 32 } : {},
      });
      await quantizeCheckpoint(file, quantized, { quantizationConfig });
      assert.ok(await isQuantizedCheckpoint(quantized));
      const checkpoint = await openCheckpoint(quantized);
      const weights = await openWeights(checkpoint, { config: {}, linearNames: () => true });
      assert.equal(weights.quantizationConfig?.quantMethod, "torchao");
      const info = weights.catalog.lookup("transformer_blocks.0.attn.to_q.weight")!;
      assert.equal(info.format.kind, "quantized");
      assert.deepEqual([...info.shape], [32, 32]);
      await checkpoint.close();
      await dequantizeCheckpoint(quantized, dense);
      const { hashes, metadata } = await checkpointHashes(dense);
      assert.deepEqual(metadata, { format: "pt" });
      const source = await checkpointHashes(file);
      assert.deepEqual(Object.keys(hashes).sort(), Object.keys(source.hashes).sort());
    });
  });
}

test("old names mean what they meant in Diffusers", () => {
  const scheme = (quantType: string) => new TorchAoConfig({ quantType }).quantType.scheme;
  assert.deepEqual(scheme("float8wo"), scheme("float8wo_e5m2"));
  assert.deepEqual(scheme("float8_weight_only"), scheme("float8wo_e4m3"));
  assert.deepEqual(scheme("fp6"), scheme("fp6_e3w2"));
  assert.deepEqual(scheme("int8_weight_only"), new Int8WeightOnlyConfig().scheme);
});

test("configs that torchao or Diffusers refuse are refused, and what is not supported says so", async () => {
  const make = (quantType: unknown) => new TorchAoConfig({ quantType: quantType as string });
  const dict = (quant_type: unknown) => TorchAoConfig.fromDict({ quant_type });
  await assertFails(() => make("int9wo"), "quantization_config", /torchao config/);
  await assertFails(() => make(7), "quantization_config", /TorchAoConfig/);
  await assertFails(() => dict({ a: {}, default: {} }), "quantization_config", /default/);
  const grouped = { _type: "Int8WeightOnlyConfig", _data: { group_size: 128 } };
  await assertFails(() => dict({ default: grouped }), "quantization_config", /PerGroup/);
  const hqq = {
    _type: "Int4WeightOnlyConfig",
    _data: { int4_choose_qparams_algorithm: { _type: "Int4ChooseQParamsAlgorithm", _data: "HQQ" } },
  };
  await assertFails(() => dict({ default: hqq }), "quantization_config", /TILE_PACKED_TO_4D/);
});

test("skip lists match as Diffusers' torchao quantizer does", () => {
  const quantizer = quantizerOf(
    new TorchAoConfig({
      quantType: "int8wo",
      modulesToNotConvert: ["proj_out", "x_embedder.weight"],
    }),
  );
  assert.ok(quantizer.skips("proj_out"));
  assert.ok(quantizer.skips("single_transformer_blocks.0.proj_out"));
  assert.ok(quantizer.skips("x_embedder"));
  assert.ok(!quantizer.skips("proj_out_2"));
});

test("widths that the groups do not divide stay dense", () => {
  const quantizer = quantizerOf(new TorchAoConfig({ quantType: "int4wo" }));
  assert.equal(quantizer.describe([8, 64]), null);
  assert.notEqual(quantizer.describe([8, 256]), null);
});

test("damaged weights are named: no description, another block size, a missing scale", async () => {
  const quantizer = quantizerOf(new TorchAoConfig({ quantType: "int8wo" }));
  const dense = inputs.get("normal.bfloat16")!;
  const weight = await quantizer.quantize("m.weight", dense, noPause);
  const entries = new Map(quantizer.write("m.weight", weight).map((t) => [t.name, t.tensor]));
  const metadata = quantizer.fileMetadata!([
    { name: "m.weight", dtype: dense.dtype, shape: dense.shape, quantized: true },
  ]);
  const reader = (changed: Record<string, string>, without?: string) => {
    const kept = new Map([...entries].filter(([name]) => name !== without));
    const read = (name: string) => Promise.resolve(kept.get(name)!);
    return { entries: kept, metadata: changed, read };
  };
  const read = (...of: Parameters<typeof reader>) => quantizer.read("m.weight", reader(...of));
  await assertFails(() => read({}), "missing_tensor", /metadata/);
  const other = metadata["m.weight"].replace("[1, 256]", "[1, 100]");
  await assertFails(() => read({ "m.weight": other }), "tensor_shape_mismatch", /block_size/);
  await assertFails(() => read(metadata, "m._weight_scale"), "missing_tensor", /_weight_scale/);
  const dynamic = metadata["m.weight"].replace(
    '"act_quant_kwargs": null',
    '"act_quant_kwargs": {}',
  );
  await assertFails(() => read({ "m.weight": dynamic }), "unsupported", /act_quant_kwargs/);
});

test("every torchao format of the command line quantizes", async () => {
  const formats = quantizeFormats().filter(({ fullName }) => fullName.startsWith("torchao:"));
  assert.equal(formats.length, 23);
  const dense = inputs.get("weights.bfloat16")!;
  for (const { config } of formats) {
    const quantizer = quantizerOf(config());
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const described = quantizer.describe(dense.shape, dense.dtype)!.format;
    assert.ok(described.kind === "quantized");
    assert.deepEqual(weight.tensor.layout, described.layout);
  }
});
