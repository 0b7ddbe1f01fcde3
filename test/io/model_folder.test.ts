import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import process from "node:process";
import { test } from "node:test";
import { listComponents, parseModelIndex, readModelIndex } from "../../src/io/model_folder.ts";
import { hubCacheFolder, isHubId, resolveModel } from "../../src/io/resolve_model.ts";
import { inFolder, rejects } from "./support.ts";

const FLUX = {
  _class_name: "FluxPipeline",
  _diffusers_version: "0.30.0",
  feature_extractor: [null, null],
  requires_safety_checker: false,
  scheduler: ["diffusers", "FlowMatchEulerDiscreteScheduler"],
  transformer: ["diffusers", "FluxTransformer2DModel"],
};

test("components, parts left out, and settings are told apart", () => {
  const index = parseModelIndex(FLUX);
  assert.equal(index.className, "FluxPipeline");
  assert.deepEqual([...index.components.keys()], ["feature_extractor", "scheduler", "transformer"]);
  assert.equal(index.components.get("feature_extractor"), null);
  assert.deepEqual(index.components.get("transformer"), {
    library: "diffusers",
    className: "FluxTransformer2DModel",
  });
  assert.deepEqual(index.settings, {
    _diffusers_version: "0.30.0",
    requires_safety_checker: false,
  });
});

test("an index without a class, or with components that are paths, is refused", async () => {
  await rejects(() => parseModelIndex({}), "invalid_config", /_class_name/);
  await rejects(() => parseModelIndex({ _class_name: ["a", "b"] }), "invalid_config");
  for (const name of ["..", "../x", "a/b", "/etc", "a\\b", "C:", "", ".git", "x".repeat(101)]) {
    const index = { _class_name: "FluxPipeline", [name]: ["diffusers", "X"] };
    await rejects(() => parseModelIndex(index), "unsafe_path", /component/);
  }
});

test("the components of a folder are listed with their weights", async () => {
  await inFolder(async (folder) => {
    await writeFile(`${folder}/model_index.json`, JSON.stringify(FLUX));
    await rejects(() => listComponents(folder), "missing_file", /scheduler|transformer/);
    await mkdir(`${folder}/scheduler`);
    await mkdir(`${folder}/transformer`);
    const weights = [
      "diffusion_pytorch_model.safetensors",
      "diffusion_pytorch_model.fp16.safetensors",
    ];
    for (const name of weights) await writeFile(`${folder}/transformer/${name}`, "");
    await writeFile(`${folder}/scheduler/scheduler_config.json`, "{}");
    const [scheduler, transformer] = await listComponents(folder, { variant: "fp16" });
    assert.equal(scheduler.weights, undefined);
    assert.equal(transformer.path, `${folder}/transformer`);
    assert.deepEqual(transformer.weights, { kind: "single", name: weights[1] });
    const plain = await listComponents(folder);
    assert.deepEqual(plain[1].weights, { kind: "single", name: weights[0] });
    const other = await listComponents(folder, { variant: "bf16" });
    assert.deepEqual(other[1].weights, { kind: "single", name: weights[0] });
    assert.equal((await readModelIndex(folder)).components.size, 3);
  });
});

test("Hub ids are told from paths", () => {
  for (const id of ["black-forest-labs/FLUX.1-schnell", "a/b", "hf-internal-testing/tiny_flux.1"]) {
    assert.ok(isHubId(id), id);
  }
  const paths = [
    "",
    "model",
    "./model",
    "../model",
    "a/../b",
    "/a/b",
    "a/b/c",
    "a//b",
    "~/b",
    "a/b.",
    "a--b/c",
    "a b/c",
    "a/b?x=1",
    "a/b#c",
    "a/%2e%2e",
    "https://host/a",
    "C:\\models",
    `${"a".repeat(97)}/b`,
  ];
  for (const path of paths) assert.ok(!isHubId(path), path);
});

test("a model that is no folder and no Hub id is not found", async () => {
  await inFolder(async (folder) => {
    await rejects(() => resolveModel(`${folder}/none`), "model_not_found", /no such folder/);
    await rejects(() => resolveModel(""), "model_not_found");
    await rejects(() => resolveModel(folder), "model_not_found", /without model_index.json/);
    await writeFile(`${folder}/file`, "");
    await rejects(() => resolveModel(`${folder}/file`), "model_not_found", /a file/);
    await writeFile(`${folder}/model_index.json`, "{}");
    assert.equal(await resolveModel(folder), folder);
  });
});

test("an unknown id is not found when the network may not be used", async () => {
  await inFolder(async (folder) => {
    const options = { cacheFolder: folder, localFilesOnly: true };
    const error = await rejects(
      () => resolveModel("nobody/nothing", options),
      "model_not_found",
      /nothing in the cache, and no network allowed/,
    );
    assert.ok(error.detail.remedy);
  });
});

test("revisions that are paths are refused", async () => {
  for (const revision of ["../x", "a/../b", "", "/x", "a b", ".git", "x".repeat(201)]) {
    const options = { revision, cacheFolder: "/nowhere", localFilesOnly: true };
    await rejects(() => resolveModel("a/b", options), "invalid_argument", /revision/);
  }
});

test("the cache is where the Python libraries have it", () => {
  const names = ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"];
  const before = names.map((name) => process.env[name]);
  const withVariables = (variables: Record<string, string>) => {
    for (const name of names) delete process.env[name];
    Object.assign(process.env, variables);
    return hubCacheFolder();
  };
  try {
    assert.equal(withVariables({ HF_HUB_CACHE: "/c", HF_HOME: "/h" }), "/c");
    assert.equal(withVariables({ HF_HOME: "/h", XDG_CACHE_HOME: "/x" }), "/h/hub");
    assert.equal(withVariables({ XDG_CACHE_HOME: "/x" }), "/x/huggingface/hub");
    assert.equal(withVariables({}), `${homedir()}/.cache/huggingface/hub`);
  } finally {
    names.forEach((name, i) => {
      if (before[i] === undefined) delete process.env[name];
      else process.env[name] = before[i];
    });
  }
});
