/**
 * A Flux transformer of FLUX.1's width (3072, 24 heads) with random weights, quantized while it
 * loads, makes one step of a picture in less memory than its weights: planned and measured peak.
 *
 *     deno run -A bench/real_width.ts [--double 2] [--single 4] [--size 256] [--threads 2]
 *         [--quantize bitsandbytes:nf4] [--resident-mib 256] [--folder FOLDER] [--check]
 *         [--name NAME]
 *
 * Without --folder the checkpoint goes to a temporary folder that is deleted in the end. --check
 * repeats the step with all weights resident: the bytes must be the same. Prints one JSON object;
 * with --name it also goes to bench/results/NAME.json.
 */

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createWasmBackend } from "../src/backends/wasm/mod.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { TIMESTEP_CHANNELS, timestepEmbedding } from "../src/models/timestep_embedding.ts";
import { openComponent } from "../src/pipelines/component.ts";
import { plannedMemory } from "../src/pipelines/memory_plan.ts";
import { Stage } from "../src/pipelines/stage.ts";
import { StageClock } from "../src/pipelines/stage_clock.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import { processMemoryBytes } from "../src/runtime/system.ts";
import type { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";
import { thisMachine } from "./machine.ts";
import { transformerShapes, writeRandomTransformer } from "./random_transformer.ts";

const { values } = parseArgs({
  options: {
    double: { type: "string", default: "2" },
    single: { type: "string", default: "4" },
    heads: { type: "string", default: "24" },
    size: { type: "string", default: "256" },
    threads: { type: "string", default: "2" },
    quantize: { type: "string", default: "bitsandbytes:nf4" },
    "resident-mib": { type: "string", default: "256" },
    folder: { type: "string" },
    check: { type: "boolean", default: false },
    name: { type: "string" },
  },
});

/** FLUX.1's config.json but for the number of blocks. */
const config = {
  _class_name: "FluxTransformer2DModel",
  attention_head_dim: 128,
  axes_dims_rope: [16, 56, 56],
  guidance_embeds: false,
  in_channels: 64,
  joint_attention_dim: 4096,
  num_attention_heads: Number(values.heads),
  num_layers: Number(values.double),
  num_single_layers: Number(values.single),
  pooled_projection_dim: 768,
};
const TEXT_TOKENS = 512;
const PIXELS_PER_TOKEN = 16;
const side = Number(values.size) / PIXELS_PER_TOKEN;
const sizes = { height: side, width: side, textTokens: TEXT_TOKENS };

/** One step with a budget for resident weights; weights beyond it stream. */
async function oneStep(folder: string, residentWeightBytes: number) {
  const { config: quantizationConfig } = parseQuantizeFlag(values.quantize);
  const threads = Number(values.threads);
  const backend = await createWasmBackend({ threads, residentWeightBytes });
  const component = await openComponent(
    folder,
    "transformer",
    (json) => new FluxTransformer2DModel(json),
    { quantizationConfig },
  );
  const parts = { component, keepsWeights: false, backend, clock: new StageClock() };
  const modulation = new Stage({
    ...parts,
    name: "transformer.modulation",
    capture: (graph, sizes: { steps: number }) => component.model.captureModulation(graph, sizes),
  });
  const denoise = new Stage({
    ...parts,
    name: "transformer.denoise",
    capture: (graph, size: typeof sizes) => component.model.captureDenoise(graph, size),
  });
  const plans = [modulation.plan({ steps: 1 }), denoise.plan(sizes)];
  const planned = plannedMemory(plans.map((plan) => ({
    name: plan.name,
    plan,
    keepsWeights: false,
    scratchBytes: backend.scratchBytes(plan),
  })));

  const started = performance.now();
  const row = await modulation.run({ steps: 1 }, {}, async (program) => {
    program.write("timestep", timestepEmbedding([1000], TIMESTEP_CHANNELS));
    program.write("pooled", noise([1, config.pooled_projection_dim]));
    await program.run();
    return program.read("modulation");
  });
  await denoise.load(sizes);
  const loadSeconds = (performance.now() - started) / 1000;
  const { velocity, stepSeconds } = await denoise.run(sizes, {}, async (program) => {
    program.write("modulation", row);
    program.write("latents", noise([side * side, config.in_channels]));
    program.write("text", noise([TEXT_TOKENS, config.joint_attention_dim]));
    const began = performance.now();
    await program.run();
    return { velocity: program.read("velocity"), stepSeconds: (performance.now() - began) / 1000 };
  });
  const measured = backend.memory().peak;
  const { arenaBytes, weightBytes } = plans[1]!;
  await backend.close();
  await component.close();
  return {
    velocity,
    report: {
      residentWeightBytes,
      denoise: { weightBytes, arenaBytes },
      peakBytes: { planned: planned.peak, measured, ratio: measured / planned.peak },
      processBytes: processMemoryBytes(),
      seconds: { modulationAndLoad: loadSeconds, step: stepSeconds },
    },
  };
}

function noise(shape: readonly number[]): HostTensor {
  return new TorchGenerator(0).randn(shape);
}

function checkFinite(velocity: HostTensor): void {
  if (!velocity.toFloat32().every(Number.isFinite)) throw new Error("the velocity is not finite");
}

const folder = values.folder ?? mkdtempSync(join(tmpdir(), "halftone-real-width-"));
try {
  const transformer = join(folder, "transformer");
  if (!existsSync(transformer)) await writeRandomTransformer(transformer, config);
  let parameters = 0;
  for (const shape of transformerShapes(config).values()) {
    parameters += shape.reduce((product, size) => product * size, 1);
  }
  const streamed = await oneStep(folder, Number(values["resident-mib"]) * 2 ** 20);
  checkFinite(streamed.velocity);
  const result = {
    machine: thisMachine(),
    config,
    parameters,
    settings: { quantize: values.quantize, size: values.size, threads: values.threads },
    streamed: streamed.report,
    resident: undefined as unknown,
    sameBytes: undefined as boolean | undefined,
  };
  if (values.check) {
    const resident = await oneStep(folder, 2.5 * 2 ** 30);
    result.resident = resident.report;
    result.sameBytes = streamed.velocity.bytes.every((byte, at) =>
      byte === resident.velocity.bytes[at]
    );
  }
  const text = `${JSON.stringify(result, null, 2)}\n`;
  const path = new URL(`./results/${values.name}.json`, import.meta.url);
  if (values.name !== undefined) writeFileSync(path, text);
  console.log(text);
} finally {
  if (values.folder === undefined) rmSync(folder, { recursive: true, force: true });
}
