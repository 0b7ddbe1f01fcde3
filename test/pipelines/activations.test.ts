/** The pipeline's `activations` and `attention`: which ops they concern, and what comes out. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import type { FluxPlanReport } from "../../src/pipelines/flux_plans.ts";
import { modeOfChoice } from "../../src/quantization/activation_choice.ts";
import { BitsAndBytesConfig } from "../../src/quantization/bitsandbytes_config.ts";
import { PipelineQuantizationConfig } from "../../src/quantization/pipeline_config.ts";
import { TorchAoConfig } from "../../src/quantization/torchao_config.ts";
import { assertFails, GOLDENS } from "../quantization/support.ts";

const MODEL = `${GOLDENS}pipelines/dev`;
const INT8 = new BitsAndBytesConfig({ loadIn8bit: true });

function quantized(config: BitsAndBytesConfig | TorchAoConfig): FluxPipelineOptions {
  const quantMapping = { transformer: config, text_encoder_2: config };
  return {
    backend: "reference",
    quantizationConfig: new PipelineQuantizationConfig({ quantMapping }),
  };
}

/** The modes of a plan's linear layers by the name of their weight. */
async function modes(options: FluxPipelineOptions): Promise<Map<string, string>> {
  return modesOf(await FluxPipeline.describe(MODEL, { ...options, numInferenceSteps: 1 }));
}

function modesOf({ stages }: FluxPlanReport): Map<string, string> {
  const found = new Map<string, string>();
  for (const { text } of stages) {
    for (const [, name, mode] of text.matchAll(/linear\([^"]*"([^"]+)".* activations=(\S+)/g)) {
      const { kind, dtype } = JSON.parse(mode);
      found.set(name, dtype ?? kind);
    }
  }
  return found;
}

test("rounded activations are for the token layers of transformer and T5", async () => {
  const found = await modes({
    ...quantized(new TorchAoConfig({ quantType: "int8wo" })),
    activations: "int8",
  });
  assert.equal(found.get("transformer_blocks.0.attn.to_q.weight"), "int8");
  assert.equal(found.get("transformer_blocks.0.ff_context.net.2.weight"), "int8");
  assert.equal(found.get("single_transformer_blocks.0.proj_out.weight"), "int8");
  assert.equal(found.get("encoder.block.0.layer.0.SelfAttention.q.weight"), "int8");
  const few = ["x_embedder", "context_embedder", "proj_out", "time_text_embed.timestep_embedder"];
  for (const [name, mode] of found) {
    const isModulation = /norm/.test(name);
    const isDense = /^text_model/.test(name) || /DenseReluDense\.wo/.test(name);
    if (isModulation || isDense || few.some((start) => name.startsWith(start))) {
      assert.equal(mode, "float", name);
    }
  }
});

test("tables may be rounded to 16 bits by choice alone", () => {
  assert.deepEqual(modeOfChoice("int8_int16_tables"), {
    ...modeOfChoice("int8"),
    int16Tables: true,
  });
});

test("float leaves every layer in float, LLM.int8() too; else layers of few rows keep their own", async () => {
  const float = await modes({ ...quantized(INT8), activations: "float" });
  assert.deepEqual(new Set(float.values()), new Set(["float"]));
  const float8 = await modes({ ...quantized(INT8), activations: "float8" });
  assert.equal(float8.get("transformer_blocks.0.attn.to_q.weight"), "float8_e4m3fn");
  assert.equal(float8.get("transformer_blocks.0.norm1.linear.weight"), "llm_int8");
});

async function latents(options: FluxPipelineOptions): Promise<Float32Array> {
  await using pipeline = await FluxPipeline.fromPretrained(MODEL, options);
  const { latents } = await pipeline.generate({
    prompt: "a red star",
    width: 32,
    height: 32,
    numInferenceSteps: 2,
    maxSequenceLength: 16,
    outputType: "latent",
    seed: 1,
  });
  return latents.toFloat32();
}

function distance(found: Float32Array, expected: Float32Array): number {
  let [error, energy] = [0, 0];
  expected.forEach((value, index) => {
    error += (found[index] - value) ** 2;
    energy += value ** 2;
  });
  return Math.sqrt(error / energy);
}

test("int8 and float8 activations come close to float ones, int8 closer", async () => {
  const weights = quantized(new TorchAoConfig({ quantType: "int8wo" }));
  const float = await latents(weights);
  const int8 = distance(await latents({ ...weights, activations: "int8" }), float);
  const float8 = distance(await latents({ ...weights, activations: "float8" }), float);
  assert.ok(int8 > 0 && int8 < 0.02, `int8 ${int8}`);
  assert.ok(float8 > int8 && float8 < 0.1, `float8 ${float8}`);
});

test("the choice outlives a change of the weights' format", async () => {
  const weights = quantized(new TorchAoConfig({ quantType: "int8wo" }));
  await using pipeline = await FluxPipeline.fromPretrained(MODEL, {
    ...weights,
    activations: "float8",
  });
  const before = modesOf(pipeline.plan());
  assert.equal(before.get("transformer_blocks.0.attn.to_q.weight"), "float8_e4m3fn");
  await pipeline.transformer.enableLayerwiseCasting();
  const after = modesOf(pipeline.plan());
  assert.equal(pipeline.transformer.quantizationConfig?.quantMethod, "torchao+layerwise");
  for (const [name, mode] of before) {
    // What was dense is cast now, and rounds its activations where it sees a row per token.
    if (mode !== "float") assert.equal(after.get(name), mode, name);
  }
  await pipeline.transformer.dequantize();
  const dense = modesOf(pipeline.plan());
  assert.equal(dense.get("transformer_blocks.0.attn.to_q.weight"), "float");
});

test("nonsense is refused: an unknown type, a dense model", async () => {
  const open = (options: FluxPipelineOptions) => FluxPipeline.fromPretrained(MODEL, options);
  const unknown = { activations: "int4" as "int8" };
  await assertFails(() => open(unknown), "invalid_argument", /activations.*int4/s);
  const dense = { activations: "int8", backend: "reference" } as const;
  await assertFails(() => open(dense), "invalid_argument", /dense model/);
});

test("int8 attention is the transformer's alone", async () => {
  const { stages } = await FluxPipeline.describe(MODEL, {
    attention: "int8",
    numInferenceSteps: 1,
  });
  const rounded = stages.map(({ name, text }) => {
    const ops = text.split("\n").filter((line) => line.includes(" = attention("));
    return { name, all: ops.length, int8: ops.filter((op) => op.includes("qkDtype=int8")).length };
  });
  for (const { name, all, int8 } of rounded) {
    assert.equal(int8, name === "transformer.denoise" ? all : 0, name);
  }
  assert.ok(rounded.some(({ int8 }) => int8 > 0));
});

test("int8 attention comes close to float, and wasm's to the reference's", async () => {
  const float = await latents({ backend: "reference" });
  const reference = await latents({ backend: "reference", attention: "int8" });
  const wasm = await latents({ backend: "wasm", threads: 2, attention: "int8" });
  const cost = distance(reference, float);
  assert.ok(cost > 1e-6 && cost < 0.02, `int8 ${cost}`);
  assert.ok(distance(wasm, reference) < cost / 10, `wasm ${distance(wasm, reference)}`);
});

test("another word for the attention is refused", async () => {
  const options = { attention: "int4" as "int8", numInferenceSteps: 1 };
  await assertFails(() => FluxPipeline.describe(MODEL, options), "invalid_argument", /float, int8/);
});
