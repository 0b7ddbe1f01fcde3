/** FP8 layerwise casting against PyTorch and Diffusers, and scaled single files. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { dequantizeCheckpoint, quantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import { writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { AutoencoderKL } from "../../src/models/autoencoder_kl.ts";
import { CLIPTextModel } from "../../src/models/clip.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { T5EncoderModel } from "../../src/models/t5.ts";
import { BitsAndBytesConfig } from "../../src/quantization/bitsandbytes_config.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import { LayerwiseCastingConfig } from "../../src/quantization/layerwise_casting_config.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
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
import {
  assertFails,
  GOLDENS,
  memoryReader,
  noPause,
  randomValues,
  readGolden,
  tensorOf,
} from "./support.ts";

type Storage = "float8_e4m3fn" | "float8_e5m2";

const goldens = await readGolden<{
  readonly cases: MethodCase[];
  readonly models: Record<string, Record<string, string>>;
  readonly vae: Record<string, string>;
  readonly over_nf4: Record<string, string>;
  readonly classes: Record<string, Record<string, string>>;
}>("layerwise.json");
const transformer = new FluxTransformer2DModel(
  await readConfig(`${GOLDENS}pipelines/dev/transformer`),
);
const vae = new AutoencoderKL(await readConfig(`${GOLDENS}pipelines/dev/vae`));
const inputs = await quantizerInputs();
const SOURCE = `${GOLDENS}pipelines/dev/transformer`;
const linearNames = (name: string): boolean =>
  name.endsWith(".weight") && !/norm_(added_)?[qk]\.weight$/.test(name);

test("weights are cast, and widened again, as PyTorch does it", async () => {
  let equal = 0;
  for (const { input, scheme, sha256 } of goldens.cases) {
    const dense = inputs.get(input)!;
    const method = quantizerOf(new LayerwiseCastingConfig({ storageDtype: scheme as Storage }));
    const weight = await method.quantize("m.weight", dense, noPause);
    const [written, ...rest] = method.write("m.weight", weight);
    assert.equal(rest.length, 0);
    assert.equal(written.tensor.dtype, scheme);
    assert.equal(shortHash(written.tensor.bytes), sha256.weight, `${input} ${scheme}`);
    assert.equal(shortHash(dequantized(method, weight).bytes), sha256.dequantized);
    equal += 2;
  }
  assert.equal(equal, 120);
});

for (const [name, hashes] of Object.entries(goldens.models)) {
  const [storageDtype, option] = name.split(".") as [Storage, string];
  test(`a transformer cast to ${name} has the tensors Diffusers saves, biases included`, async () => {
    await inFolder(async (folder) => {
      const options = {
        default: {},
        proj_out: { skipModulesPattern: ["proj_out", "^x_embedder$"] },
        classes: { skipModulesClasses: ["FluxSingleTransformerBlock", "AdaLayerNormContinuous"] },
      }[option];
      await quantizeCheckpoint(SOURCE, folder, {
        quantizationConfig: new LayerwiseCastingConfig({ storageDtype, ...options }),
        linearNames,
        dtype: "bfloat16",
        modules: transformer,
      });
      assert.deepEqual((await checkpointHashes(folder)).hashes, hashes);
      const config = JSON.parse(await readFile(`${folder}/config.json`, "utf8"));
      assert.equal(config.quantization_config, undefined); // Diffusers would refuse to load it
    });
  });
}

test("an autoencoder is cast as Diffusers casts it: convolutions, but no group norms", async () => {
  await inFolder(async (folder) => {
    const config = { skipModulesPattern: ["conv_out"], skipModulesClasses: ["Encoder"] };
    await quantizeCheckpoint(`${GOLDENS}pipelines/dev/vae`, folder, {
      quantizationConfig: new LayerwiseCastingConfig(config),
      linearNames: (name) => vae.isLinearWeight(name),
      dtype: "bfloat16",
      modules: vae,
    });
    assert.deepEqual((await checkpointHashes(folder)).hashes, goldens.vae);
  });
});

const NF4 = new BitsAndBytesConfig({
  loadIn4bit: true,
  bnb4bitQuantType: "nf4",
  llmInt8SkipModules: [
    "x_embedder",
    "context_embedder",
    "time_text_embed",
    "norm_out",
    "ff",
    "ff_context",
    "proj_out",
  ],
});
const OVER_NF4 = { linearNames, dtype: "bfloat16", modules: transformer } as const;

test("what NF4 leaves dense is cast as Diffusers casts it, at once or afterwards", async () => {
  await inFolder(async (folder) => {
    const [both, nf4, after] = ["both", "nf4", "after"].map((name) => `${folder}/${name}`);
    const casting = new LayerwiseCastingConfig();
    const quantizationConfig = casting.over(NF4);
    await quantizeCheckpoint(SOURCE, both, { ...OVER_NF4, quantizationConfig });
    assert.deepEqual((await checkpointHashes(both)).hashes, goldens.over_nf4);
    await quantizeCheckpoint(SOURCE, nf4, { ...OVER_NF4, quantizationConfig: NF4 });
    await quantizeCheckpoint(nf4, after, { ...OVER_NF4, quantizationConfig: casting });
    assert.deepEqual((await checkpointHashes(after)).hashes, goldens.over_nf4);
    const [one, other] = await Promise.all([both, after].map((path) => readConfig(path)));
    assert.deepEqual(other, one);
    assert.equal((one.quantization_config as Record<string, unknown>).quant_method, "bitsandbytes");
  });
});

test("a checkpoint cast over NF4 is loaded with its 8-bit weights, and made dense", async () => {
  await inFolder(async (folder) => {
    const [saved, dense] = [`${folder}/saved`, `${folder}/dense`];
    const quantizationConfig = new LayerwiseCastingConfig().over(NF4);
    await quantizeCheckpoint(SOURCE, saved, { ...OVER_NF4, quantizationConfig });
    const kinds = async (
      path: string,
      options: { quantizationConfig?: LayerwiseCastingConfig },
    ) => {
      const checkpoint = await openCheckpoint(path);
      try {
        const config = await readConfig(path);
        const weights = await openWeights(checkpoint, { ...OVER_NF4, ...options, config });
        const formatOf = (name: string) => weights.catalog.lookup(name)!.format;
        return [
          "transformer_blocks.0.attn.to_q",
          "transformer_blocks.0.ff.net.2",
          "norm_out.linear",
        ]
          .map((name) => formatOf(`${name}.weight`));
      } finally {
        await checkpoint.close();
      }
    };
    const [attention, feedForward, norm] = await kinds(saved, {});
    assert.ok(attention.kind === "quantized" && attention.layout.bits === 4);
    assert.ok(feedForward.kind === "quantized" && feedForward.layout.bits === 8);
    assert.equal(norm.kind, "dense");
    assert.deepEqual(await kinds(SOURCE, { quantizationConfig }), [attention, feedForward, norm]);
    await dequantizeCheckpoint(saved, dense);
    const before = await openCheckpoint(SOURCE), after = await openCheckpoint(dense);
    const name = "transformer_blocks.0.ff.net.2.weight";
    const rounded = (await before.read(name)).cast("bfloat16").cast("float8_e4m3fn");
    assert.deepEqual((await after.read(name)).toFloat32(), rounded.toFloat32());
    assert.equal((await readConfig(dense)).quantization_config, undefined);
    await before.close();
    await after.close();
  });
});

test("modules have the classes that they have in Python", () => {
  const models = {
    transformer,
    vae,
    text_encoder: CLIPTextModel.prototype,
    text_encoder_2: T5EncoderModel.prototype,
  };
  for (const [name, model] of Object.entries(models)) {
    const modules = Object.entries(goldens.classes[name]);
    assert.ok(modules.length > 20);
    for (const [module, expected] of modules) {
      assert.equal(model.classOfModule(module), expected, `${name}: ${module}`);
    }
    assert.equal(model.classOfModule("no.such.module"), undefined);
  }
});

test("a casting over a casting, and wrong class names, are refused", async () => {
  const casting = new LayerwiseCastingConfig();
  await assertFails(() => casting.over(casting), "quantization_config", /another method/);
  const skipModulesClasses = "Linear" as unknown as string[];
  await assertFails(
    () => new LayerwiseCastingConfig({ skipModulesClasses }),
    "quantization_config",
    /class names/,
  );
});

test("on the fly the biases are rounded too, and the skipped modules are left alone", async () => {
  const checkpoint = await openCheckpoint(SOURCE);
  const quantizationConfig = new LayerwiseCastingConfig();
  const weights = await openWeights(checkpoint, { config: {}, linearNames, quantizationConfig });
  const read = async (name: string) => {
    const { shape, format } = weights.catalog.lookup(name)!;
    const stored = await weights.source.read({
      name,
      shape,
      format,
      arrangement: "rows",
      bytes: 0,
    });
    return stored.kind === "dense" ? stored.tensor : null;
  };
  const [bias, norm] = ["transformer_blocks.0.attn.to_q.bias", "norm_out.linear.bias"];
  const dense = await checkpoint.read(bias);
  assert.deepEqual((await read(bias))!.toFloat32(), dense.cast("float8_e4m3fn").toFloat32());
  assert.notDeepEqual((await read(bias))!.toFloat32(), dense.toFloat32());
  assert.deepEqual((await read(norm))!.toFloat32(), (await checkpoint.read(norm)).toFloat32());
  assert.equal(weights.catalog.lookup("proj_out.weight")!.format.kind, "dense");
  const inner = "single_transformer_blocks.0.proj_out.weight";
  assert.equal(weights.catalog.lookup(inner)!.format.kind, "quantized");
  await checkpoint.close();
});

/** A scaled weight as single files of ComfyUI hold it. */
function scaled(suffix: string, scale: HostTensor, dtype: Storage = "float8_e4m3fn") {
  const weight = tensorOf(randomValues(8 * 16, 5, 400), [8, 16], dtype);
  return {
    "m.weight": weight,
    [`m.${suffix}`]: scale,
    "m.bias": tensorOf(randomValues(8, 6), [8], "bfloat16"),
    scaled_fp8: HostTensor.zeros("float8_e4m3fn", [2]),
  };
}

const SCALES: [string, number[], DType][] = [
  ["scale_weight", [], "float32"],
  ["weight_scale", [1], "bfloat16"],
  ["weight_scale", [8, 1], "float32"],
];
for (const [suffix, shape, dtype] of SCALES) {
  test(`a single file with .${suffix} ${dtype} [${shape}] is scaled, and kept as it is`, async () => {
    await inFolder(async (folder) => {
      const scale = tensorOf(randomValues(shape.reduce((a, b) => a * b, 1), 9), shape, dtype);
      const tensors = scaled(suffix, scale);
      await writeSafetensors(`${folder}/scaled.safetensors`, tensors);
      const checkpoint = await openCheckpoint(`${folder}/scaled.safetensors`);
      const weights = await openWeights(checkpoint, { config: {}, linearNames: () => true });
      assert.equal(weights.catalog.lookup(`m.${suffix}`), undefined);
      assert.equal(weights.catalog.lookup("scaled_fp8"), undefined);
      const method = quantizerOf(weights.quantizationConfig!);
      const weight = await method.read("m.weight", checkpoint);
      const scales = scale.toFloat32();
      const expected = tensors["m.weight"].toFloat32().map((value, index) =>
        value * scales[scales.length === 1 ? 0 : Math.floor(index / 16)]
      );
      assert.deepEqual(dequantize(weight.tensor), expected);
      const written = new Map(method.write("m.weight", weight).map((t) => [t.name, t.tensor]));
      assert.deepEqual([...written.keys()], ["m.weight", `m.${suffix}`]);
      for (const [name, { bytes }] of written) {
        assert.deepEqual(bytes, (tensors as Record<string, HostTensor>)[name].bytes);
      }
      await checkpoint.close();
      await dequantizeCheckpoint(`${folder}/scaled.safetensors`, `${folder}/dense.safetensors`, {
        dtype: "float32",
      });
      const dense = await openCheckpoint(`${folder}/dense.safetensors`);
      assert.deepEqual((await dense.read("m.weight")).toFloat32(), expected);
      assert.deepEqual([...dense.entries.keys()].sort(), ["m.bias", "m.weight"]);
      await dense.close();
    });
  });
}

test("a caller's format replaces plain casting, but not scales", async () => {
  const nf4 = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: "nf4" });
  const weight = tensorOf(randomValues(64 * 64, 5), [64, 64], "float8_e4m3fn");
  const options = { config: {}, linearNames: () => true, quantizationConfig: nf4 };
  const plain = await openWeights(memoryReader([{ name: "m.weight", tensor: weight }]), options);
  assert.equal(plain.quantizationConfig, nf4);
  const warnings: string[] = [];
  const scale = { name: "m.scale_weight", tensor: tensorOf(Float32Array.of(2), []) };
  const reader = memoryReader([{ name: "m.weight", tensor: weight }, scale]);
  const kept = await openWeights(reader, { ...options, onWarning: (text) => warnings.push(text) });
  assert.equal(kept.quantizationConfig?.quantMethod, "layerwise");
  assert.equal(warnings.length, 1);
});

test("what is cast is read back with the same bytes", async () => {
  const dense = inputs.get("normal.bfloat16")!;
  const method = quantizerOf(new LayerwiseCastingConfig({ storageDtype: "float8_e5m2" }));
  const weight = await method.quantize("m.weight", dense, noPause);
  await assertRoundTrip(method, "m.weight", dense, weight);
});

test("a pattern is searched for in the module and those around it, anchored to the whole name", () => {
  const usual = quantizerOf(new LayerwiseCastingConfig());
  assert.ok(usual.skips("proj_out"));
  assert.ok(!usual.skips("single_transformer_blocks.0.proj_out"));
  assert.ok(usual.skips("transformer_blocks.0.norm1.linear"));
  assert.ok(!usual.skips("transformer_blocks.0.attn.to_q"));
  const own = quantizerOf(new LayerwiseCastingConfig({ skipModulesPattern: ["attn$"] }));
  assert.ok(own.skips("transformer_blocks.0.attn.to_q"));
  assert.ok(!own.skips("proj_out"));
});

test("bad configs and scales of another shape are refused", async () => {
  const options = { storageDtype: "int8" as Storage };
  await assertFails(
    () => new LayerwiseCastingConfig(options),
    "quantization_config",
    /storage_dtype/,
  );
  const broken = { skipModulesPattern: ["("] };
  await assertFails(() => new LayerwiseCastingConfig(broken), "quantization_config", /regular/);
  const tensors = Object.entries(scaled("scale_weight", tensorOf(randomValues(3, 1), [3])));
  const reader = memoryReader(tensors.map(([name, tensor]) => ({ name, tensor })));
  const open = () => openWeights(reader, { config: {}, linearNames: () => true });
  await assertFails(open, "tensor_shape_mismatch", /m\.scale_weight.*\[8, 1\]/s);
});
