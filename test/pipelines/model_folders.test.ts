import assert from "node:assert/strict";
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { readGolden, SMALL_CALL } from "./goldens.ts";

const FOLDER = readGolden("dev").folder;

async function latentsOf(folder: string, options: FluxPipelineOptions = {}): Promise<Uint8Array> {
  await using pipe = await FluxPipeline.fromPretrained(folder, {
    backend: "reference",
    ...options,
  });
  const { latents } = await pipe.generate({ ...SMALL_CALL, outputType: "latent" });
  return latents.bytes;
}

const EXPECTED = latentsOf(FOLDER);

/** Runs `use` on a copy of the model folder. */
async function onCopy(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/halftone-folder-`);
  try {
    cpSync(FOLDER, `${folder}/model`, { recursive: true });
    await use(`${folder}/model`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function editJson(file: string, change: (value: Record<string, unknown>) => void): void {
  const value = JSON.parse(readFileSync(file, "utf8"));
  change(value);
  writeFileSync(file, JSON.stringify(value));
}

test("a sharded checkpoint gives the same picture, and a missing shard is named", async () => {
  await onCopy(async (folder) => {
    await using pipe = await FluxPipeline.fromPretrained(folder, {
      backend: "reference",
      dtype: "float32",
    });
    const sharded = `${folder}-sharded`;
    await pipe.savePretrained(sharded, { maxShardSize: 100_000 });
    const files = readdirSync(`${sharded}/transformer`);
    assert.ok(files.includes("diffusion_pytorch_model.safetensors.index.json"), `${files}`);
    assert.ok(files.length > 4);
    assert.deepEqual(await latentsOf(sharded), await EXPECTED);
    const shard = files.find((name) => name.includes("-00002-of-"))!;
    rmSync(`${sharded}/transformer/${shard}`);
    await assert.rejects(latentsOf(sharded), (error: { code?: string; message: string }) => {
      return error.code === "missing_file" && error.message.includes(shard);
    });
  });
});

test("weights of a variant are taken where a component has them", async () => {
  await onCopy(async (folder) => {
    const weights = `${folder}/transformer/diffusion_pytorch_model`;
    renameSync(`${weights}.safetensors`, `${weights}.fp16.safetensors`);
    assert.deepEqual(await latentsOf(folder, { variant: "fp16" }), await EXPECTED);
  });
});

test("configs with only what differs from the class defaults are enough", async () => {
  await onCopy(async (folder) => {
    editJson(`${folder}/transformer/config.json`, (config) => {
      delete config.out_channels;
      delete config.patch_size;
      delete config._diffusers_version;
    });
    editJson(`${folder}/text_encoder/config.json`, (config) => {
      for (const key of ["hidden_act", "layer_norm_eps", "max_position_embeddings"]) {
        delete config[key];
      }
    });
    editJson(`${folder}/text_encoder_2/config.json`, (config) => {
      for (const key of ["dense_act_fn", "is_gated_act", "layer_norm_epsilon"]) delete config[key];
      delete config.relative_attention_max_distance;
      delete config.relative_attention_num_buckets;
    });
    editJson(`${folder}/vae/config.json`, (config) => {
      for (const key of ["act_fn", "mid_block_add_attention", "in_channels"]) delete config[key];
    });
    editJson(`${folder}/model_index.json`, (index) => {
      index.image_encoder = [null, null];
      index.feature_extractor = [null, null];
    });
    assert.deepEqual(await latentsOf(folder), await EXPECTED);
  });
});

test("parts that are absent are named", async () => {
  const cases: [string, string, string][] = [
    ["model_index.json", "model_not_found", "model_index.json"],
    ["transformer/config.json", "missing_file", "transformer/config.json"],
    ["vae/diffusion_pytorch_model.safetensors", "missing_file", "vae"],
    ["text_encoder_2/model.safetensors", "missing_file", "text_encoder_2"],
    ["tokenizer/merges.txt", "missing_file", "merges.txt"],
    ["tokenizer_2/tokenizer.json", "missing_file", "tokenizer.json"],
    ["scheduler/scheduler_config.json", "missing_file", "scheduler_config.json"],
  ];
  for (const [file, code, mention] of cases) {
    await onCopy(async (folder) => {
      rmSync(`${folder}/${file}`);
      await assert.rejects(latentsOf(folder), (error: { code?: string; message: string }) => {
        assert.equal(error.code, code, error.message);
        assert.ok(error.message.includes(mention), error.message);
        return true;
      });
    });
  }
});
