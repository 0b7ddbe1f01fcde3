/** The models of a pipeline: cast, made dense, saved; and how their bytes are told. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { dequantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { parseQuantizeFlags } from "../../src/quantization/formats.ts";
import { loadTensors } from "../models/run_model.ts";
import { inFolder } from "../io/support.ts";
import { readGolden } from "./goldens.ts";

const FOLDER = readGolden("heads_of_32").folder;
const SIZES = { width: 16, height: 8, numInferenceSteps: 2, maxSequenceLength: 8 };
const CALL = { prompt: "a red star", ...SIZES, seed: 3 };

function open(folder: string, options: FluxPipelineOptions = {}): Promise<FluxPipeline> {
  return FluxPipeline.fromPretrained(folder, { backend: "reference", ...options });
}

function quantizedTo(flag: string, options?: { quantizeOuter?: boolean }): FluxPipelineOptions {
  return { quantizationConfig: parseQuantizeFlags([flag], options) };
}

async function latentsOf(pipe: FluxPipeline): Promise<Uint8Array> {
  return (await pipe.generate(CALL)).latents.bytes;
}

async function latents(folder: string, options?: FluxPipelineOptions): Promise<Uint8Array> {
  await using pipe = await open(folder, options);
  return await latentsOf(pipe);
}

test("a model is cast after a picture was made, as if it had been opened so", async () => {
  await using pipe = await open(FOLDER);
  const before = await latentsOf(pipe);
  const { transformer } = pipe;
  const dense = transformer.getMemoryFootprint();
  const methods = () => [pipe.transformer, pipe.vae].map((m) => m.quantizationConfig?.quantMethod);
  assert.deepEqual(methods(), [undefined, undefined]);
  await transformer.enableLayerwiseCasting();
  assert.deepEqual(methods(), ["layerwise", undefined]);
  assert.ok(transformer.getMemoryFootprint() < dense * 0.8);
  const after = await latentsOf(pipe);
  assert.notDeepEqual(after, before);
  assert.deepEqual(
    after,
    await latents(FOLDER, quantizedTo("transformer=layerwise:float8_e4m3fn")),
  );
});

test("what NF4 leaves dense is cast at once or afterwards, saved, and opened again", async () => {
  await inFolder(async (folder) => {
    const flag = "transformer=bitsandbytes:nf4+layerwise:float8_e4m3fn";
    const expected = await latents(FOLDER, quantizedTo(flag));
    await using pipe = await open(FOLDER, quantizedTo("transformer=bitsandbytes:nf4"));
    await pipe.transformer.enableLayerwiseCasting();
    assert.deepEqual(await latentsOf(pipe), expected);
    await pipe.savePretrained(`${folder}/saved`);
    await using saved = await open(`${folder}/saved`);
    assert.deepEqual(await latentsOf(saved), expected);
    const { transformer } = saved;
    assert.equal(transformer.quantizationConfig?.quantMethod, "bitsandbytes+layerwise");

    await using nf4 = await open(FOLDER, quantizedTo("transformer=bitsandbytes:nf4"));
    await nf4.savePretrained(`${folder}/nf4`);
    await using loaded = await open(`${folder}/nf4`);
    await loaded.transformer.enableLayerwiseCasting();
    assert.deepEqual(await latentsOf(loaded), expected);
    await loaded.savePretrained(`${folder}/cast`);
    assert.deepEqual(await latents(`${folder}/cast`), expected);
    const file = "transformer/diffusion_pytorch_model.safetensors";
    assert.deepEqual(
      readFileSync(`${folder}/cast/${file}`),
      readFileSync(`${folder}/saved/${file}`),
    );
  });
});

test("models are made dense with the values that they had, loaded or quantized here", async () => {
  await inFolder(async (folder) => {
    await using pipe = await open(FOLDER, quantizedTo("torchao:int8wo"));
    const models = [pipe.transformer, pipe.textEncoder2!];
    assert.ok(models.every((model) => model.quantizationConfig?.quantMethod === "torchao"));
    await pipe.savePretrained(`${folder}/int8`);
    await pipe.dequantize({ dtype: "float32" });
    assert.ok(models.every((model) => model.quantizationConfig === null));
    const expected = await latentsOf(pipe);
    await pipe.savePretrained(`${folder}/dense`);
    assert.deepEqual(await latents(`${folder}/dense`), expected);
    const config = JSON.parse(readFileSync(`${folder}/dense/transformer/config.json`, "utf8"));
    assert.equal(config.quantization_config, undefined);

    await using loaded = await open(`${folder}/int8`);
    await loaded.dequantize({ dtype: "float32" });
    assert.deepEqual(await latentsOf(loaded), expected);
    const [from, to] = [`${folder}/int8/transformer`, `${folder}/by_file`];
    await dequantizeCheckpoint(from, to, { dtype: "float32" });
    const [ours, theirs] = [`${folder}/dense/transformer`, to].map((path) =>
      loadTensors(`${path}/diffusion_pytorch_model.safetensors`)
    );
    assert.deepEqual([...ours.keys()].sort(), [...theirs.keys()].sort());
    for (const [name, tensor] of theirs) {
      assert.deepEqual(ours.get(name)!.toFloat32(), tensor.toFloat32(), name);
    }

    const refused = [
      [() => loaded.dequantize(), "quantization_config"],
      [() => loaded.transformer.enableLayerwiseCasting(), "unsupported"],
    ] as const;
    for (const [action, code] of refused) await assert.rejects(action, { code });
  });
});

test("Flux's outer modules stay dense by default, and a flag or an empty list quantizes them", async () => {
  for (const format of ["bitsandbytes:nf4", "torchao:int8wo", "quanto:int8", "modelopt:int8"]) {
    const flag = `transformer=${format}`;
    await using some = await open(FOLDER, quantizedTo(flag));
    await using all = await open(FOLDER, quantizedTo(flag, { quantizeOuter: true }));
    const [less, more] = [some, all].map((pipe) => pipe.transformer.getMemoryFootprint());
    assert.ok(less > more, `${format}: ${less} and ${more} bytes`);
    const formats = [some, all].map((pipe) => {
      const text = pipe.plan(SIZES).stages.map((stage) => stage.text).join("\n");
      return [
        "x_embedder",
        "transformer_blocks.0.attn.to_q",
        "single_transformer_blocks.0.proj_out",
      ]
        .map((name) => new RegExp(`\\s${name.replaceAll(".", "\\.")}\\.weight .*`).exec(text)?.[0]);
    });
    assert.notEqual(formats[0][0], formats[1][0], "the embedder");
    assert.deepEqual(formats[0].slice(1), formats[1].slice(1), "the blocks");
  }
});

const COUNTED = [
  undefined,
  "bitsandbytes:nf4-dq",
  "bitsandbytes:int8",
  "torchao:int8wo",
  "quanto:int4",
  "modelopt:nvfp4",
  "gguf:Q4_K",
  "transformer=bitsandbytes:nf4+layerwise:float8_e4m3fn",
];

for (const flag of COUNTED) {
  test(`the report of ${flag ?? "dense weights"} is what the wasm backend counts`, async () => {
    const options = flag === undefined ? {} : quantizedTo(flag);
    await using pipe = await open(FOLDER, { ...options, backend: "wasm", threads: 1 });
    const { memory } = await pipe.generate(CALL);
    const report = pipe.memoryReport(SIZES);
    assert.equal(report.backend.peak, report.peak);
    assert.equal(report.backend.weights, report.resident);
    assert.equal(memory.peak, report.peak);
    const sum = (key: "storedBytes" | "scaleBytes") =>
      report.components.reduce((total, component) => total + component[key], 0);
    assert.equal(report.stored, sum("storedBytes"));
    assert.equal(report.stored, pipe.storedBytes);
    assert.equal(sum("scaleBytes") > 0, flag !== undefined);
    assert.equal(report.components[2].storedBytes, pipe.transformer.getMemoryFootprint());
  });
}
