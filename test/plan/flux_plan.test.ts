/**
 * The plans of a tiny Flux as text, beside this file: a change to a model or a pass shows as a diff.
 * `UPDATE_PLANS=1` writes them anew.
 */

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { env } from "node:process";
import { AutoencoderKL } from "../../src/models/autoencoder_kl.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { planText } from "../../src/plan/print.ts";
import { denseCatalog, GOLDENS, loadJson, loadTensors } from "../models/run_model.ts";

const MODEL = `${GOLDENS}pipelines/dev/`;

/** The text of a component's plan. */
function textOf(component: string, capture: (config: Config, graph: Graph) => void): string {
  const folder = `${MODEL}${component}/`;
  const weights = loadTensors(`${folder}diffusion_pytorch_model.safetensors`);
  const graph = new Graph(component, denseCatalog(weights));
  capture(loadJson(`${folder}config.json`), graph);
  return planText(buildPlan(graph, { supports: () => true }));
}

type Config = ReturnType<typeof loadJson>;

const PLANS: Readonly<Record<string, () => string>> = {
  flux_denoise: () =>
    textOf("transformer", (config, graph) => {
      const sizes = { height: 4, width: 6, textTokens: 8 };
      new FluxTransformer2DModel(config).captureDenoise(graph, sizes);
    }),
  flux_modulation: () =>
    textOf("transformer", (config, graph) => {
      new FluxTransformer2DModel(config).captureModulation(graph, { steps: 4 });
    }),
  vae_decode: () =>
    textOf("vae", (config, graph) => {
      new AutoencoderKL(config).captureDecode(graph, { height: 8, width: 12 });
    }),
};

for (const [name, plan] of Object.entries(PLANS)) {
  test(`the plan ${name} of a tiny Flux is the recorded one`, () => {
    const path = new URL(`./plans/${name}.txt`, import.meta.url);
    const found = plan();
    if (env.UPDATE_PLANS) writeFileSync(path, found);
    assert.equal(found, readFileSync(path, "utf8"));
  });
}

test("a denoise plan is 21 steps a double block, 9 a single one, and four beside them", () => {
  const steps = PLANS.flux_denoise().split("\n").filter((line) => /^\d+: /.test(line));
  const count = (op: string) => steps.filter((line) => line.includes(` = ${op}(`)).length;
  assert.equal(steps.length, 2 * 21 + 2 * 9 + 4);
  assert.equal(count("copy") + count("binary") + count("unary"), 0);
});
