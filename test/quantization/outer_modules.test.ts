/** The skip lists that keep Flux's outer modules dense. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { createQuantizer, METHODS } from "../../src/quantization/auto.ts";
import { skippingOuterModules } from "../../src/quantization/outer_modules.ts";
import type { QuantizationConfig, QuantizerTarget } from "../../src/quantization/quantizer.ts";
import { readFileSync } from "node:fs";

const FOLDER = fileURLToPath(new URL("../../models/demo/transformer/", import.meta.url));
const model = new FluxTransformer2DModel(JSON.parse(readFileSync(`${FOLDER}config.json`, "utf8")));

const OUTER_LAYERS = [
  "x_embedder",
  "context_embedder",
  "time_text_embed.timestep_embedder.linear_1",
  "time_text_embed.timestep_embedder.linear_2",
  "norm_out.linear",
  "proj_out",
];
const BLOCK_LAYERS = [
  "transformer_blocks.0.norm1.linear",
  "transformer_blocks.0.attn.to_q",
  "transformer_blocks.0.ff.net.0.proj",
  "single_transformer_blocks.0.norm.linear",
  "single_transformer_blocks.0.proj_mlp",
  "single_transformer_blocks.0.proj_out",
];
const target: QuantizerTarget = {
  library: "diffusers",
  keepInFloat32: [],
  tensors: [...BLOCK_LAYERS, ...OUTER_LAYERS].map((name) => `${name}.weight`),
  modules: model,
};

/** The entries, and the outer layers that are quantized all the same. */
const EXPECTED: Record<string, [entries: string[], quantized: string[]]> = {
  bitsandbytes: [["x_embedder", "context_embedder", "time_text_embed", "norm_out"], ["proj_out"]],
  torchao: [
    ["x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out.weight"],
    [],
  ],
  quanto: [
    ["x_embedder", "context_embedder", "linear_1", "linear_2"],
    ["norm_out.linear", "proj_out"],
  ],
  // Its own exceptions leave every proj_out dense.
  modelopt: [["x_embedder", "context_embedder", "time_text_embed", "norm_out"], []],
};

function entriesOf(config: QuantizationConfig): unknown {
  const dict = config.toDict();
  return dict.llm_int8_skip_modules ?? dict.modules_to_not_convert;
}

for (const method of METHODS) {
  const { name, formats: [{ config }], skipList } = method;
  test(`${name} keeps Flux's outer modules dense as far as its skip lists can name them`, () => {
    const asked = config();
    const found = skippingOuterModules(asked, target);
    if (skipList === undefined) return assert.equal(found, asked);
    const [entries, quantized] = EXPECTED[name];
    assert.deepEqual(entriesOf(found), entries);
    const quantizer = createQuantizer(found, target);
    assert.deepEqual(OUTER_LAYERS.filter((layer) => !quantizer.skips(layer)), quantized);
    const bare = createQuantizer(config(), target);
    for (const layer of BLOCK_LAYERS) assert.equal(quantizer.skips(layer), bare.skips(layer));
    const own = method.fromDict({ ...config().toDict(), [skipList.key]: [] });
    assert.deepEqual(
      entriesOf(skippingOuterModules(own, target)),
      [],
      "a list of the caller's stays",
    );
  });
}
