import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { parseQuantizeFlags } from "../../src/quantization/formats.ts";
import { inFolder } from "../io/support.ts";
import { readGolden, SMALL_CALL } from "./goldens.ts";

const FOLDER = readGolden("heads_of_32").folder;

const FORMS: Record<string, FluxPipelineOptions> = {
  "as stored": {},
  "in float32": { dtype: "float32" },
  "in float16": { dtype: "float16" },
  "in NF4": { quantizationConfig: parseQuantizeFlags(["bitsandbytes:nf4"]) },
  "in NF4 with double quantization": {
    quantizationConfig: parseQuantizeFlags(["transformer=bitsandbytes:nf4-dq"]),
    dtype: "bfloat16",
  },
  "in int8": { quantizationConfig: parseQuantizeFlags(["bitsandbytes:int8"]) },
};

for (const [form, options] of Object.entries(FORMS)) {
  test(`a pipeline saved ${form} and opened again gives the same picture`, async () => {
    await inFolder(async (folder) => {
      await using pipe = await FluxPipeline.fromPretrained(FOLDER, {
        backend: "reference",
        ...options,
      });
      await pipe.savePretrained(`${folder}/saved`);
      await using saved = await FluxPipeline.fromPretrained(`${folder}/saved`, {
        backend: "reference",
      });
      const [before, after] = [await pipe.generate(SMALL_CALL), await saved.generate(SMALL_CALL)];
      assert.deepEqual(after.latents.bytes, before.latents.bytes);
      assert.equal(after.planHash, before.planHash);
      assert.deepEqual(readdirSync(`${folder}/saved`), readdirSync(FOLDER));
      const config = JSON.parse(readFileSync(`${folder}/saved/transformer/config.json`, "utf8"));
      assert.equal("quantization_config" in config, options.quantizationConfig !== undefined);
    });
  });
}

test("saving over something, or aborted, leaves nothing behind", async () => {
  await inFolder(async (folder) => {
    await using pipe = await FluxPipeline.fromPretrained(FOLDER, {
      backend: "reference",
      dtype: "float32",
    });
    await assert.rejects(
      pipe.savePretrained(`${folder}/saved`, { signal: AbortSignal.abort() }),
      { code: "aborted" },
    );
    assert.deepEqual(readdirSync(folder), []);
    await pipe.savePretrained(`${folder}/saved`);
    await assert.rejects(pipe.savePretrained(`${folder}/saved`), { code: "write_failed" });
    assert.deepEqual(readdirSync(folder), ["saved"]);
    assert.ok(existsSync(`${folder}/saved/model_index.json`));
  });
});
