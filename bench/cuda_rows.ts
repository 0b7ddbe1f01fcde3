/** The rows of the benchmark on an NVIDIA GPU. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { Program } from "../src/backends/backend.ts";
import { createCudaBackend, type CudaBackendOptions } from "../src/backends/cuda/mod.ts";
import type { Config } from "../src/io/config.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { openComponent } from "../src/pipelines/component.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import { attention } from "../src/ops/builders.ts";
import { Graph, type Tensor } from "../src/ops/graph.ts";
import { buildPlan } from "../src/plan/build.ts";
import { median } from "./machine.ts";
import { OneStep } from "./one_step.ts";
import { openTorch } from "./peers/torch.ts";
import { openDecoder } from "./random_decoder.ts";
import { normalTensor } from "./random_values.ts";
import { randomTransformer, writeRandomTransformer } from "./random_transformer.ts";

/** Side of the picture, and how often a program runs after its first run. */
export interface RunSizes {
  readonly pixels: number;
  readonly runs: number;
}

/** Seconds of an action, and its result. */
async function timed<Result>(
  action: () => Result | Promise<Result>,
): Promise<[Result, seconds: number]> {
  const started = performance.now();
  return [await action(), (performance.now() - started) / 1000];
}

/** Seconds of a run on the clock and of the host's processors, in the middle of some. */
async function runSeconds(program: Program, runs: number) {
  const [, first] = await timed(() => program.run());
  const clock: number[] = [], host: number[] = [];
  for (let run = 0; run < runs; run++) {
    const before = process.cpuUsage();
    clock.push((await timed(() => program.run()))[1]);
    const { user, system } = process.cpuUsage(before);
    host.push((user + system) / 1e6);
  }
  return { first, run: median(clock), host: median(host) };
}

/** A step in one format, "bfloat16" being dense weights; bytes as planned and as counted. */
export async function measureStep(
  config: Config,
  format: string,
  options: CudaBackendOptions,
  { pixels, runs }: RunSizes,
) {
  const component = await randomTransformer(config, format === "bfloat16" ? undefined : format);
  const step = new OneStep(await createCudaBackend(options), component, pixels);
  try {
    const modulation = await step.modulation();
    const [, plan] = await timed(() => void step.plans);
    const [, load] = await timed(() => step.load());
    const prepared = performance.now();
    return await step.step(modulation, async (program) => {
      const prepare = (performance.now() - prepared) / 1000;
      const { first, run, host } = await runSeconds(program, runs);
      const { weightBytes, arenaBytes } = program.plan;
      const { peak, devicePeak } = step.backend.memory();
      return {
        isFinite: program.read("velocity").toFloat32().every(Number.isFinite),
        seconds: { plan, load, prepare, firstStep: first, step: run, hostPerStep: host },
        bytes: {
          weights: weightBytes,
          arena: arenaBytes,
          plannedPeak: step.plannedPeak(),
          peak,
          devicePeak,
        },
      };
    });
  } finally {
    await step.close();
  }
}

/** Attention alone as a step of FLUX.1 has it: 512 text tokens and a token for each 16x16 pixels. */
export async function measureAttention(
  { heads, size }: { readonly heads: number; readonly size: number },
  options: CudaBackendOptions,
  { pixels, runs }: RunSizes,
) {
  const shape = [512 + (pixels / 16) ** 2, heads * size];
  const graph = new Graph("attention", { lookup: () => undefined });
  const [q, k, v] = ["q", "k", "v"].map((name) => graph.input(name, shape)) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  graph.output("mixed", attention(q, k, v, { heads, scale: 1 / Math.sqrt(size) }));
  const backend = await createCudaBackend(options);
  try {
    const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
    const weights = await backend.loadWeights(plan.weights, { read: () => Promise.reject() });
    const [program, prepare] = await timed(() => backend.compile(plan, weights));
    for (const name of ["q", "k", "v"]) program.write(name, normalTensor(shape));
    const { first, run } = await runSeconds(program, runs);
    const isFinite = program.read("mixed").toFloat32().every(Number.isFinite);
    return { isFinite, shape, seconds: { prepare, first, attention: run } };
  } finally {
    await backend.close();
  }
}

/** The decoder of FLUX.1's autoencoder. */
export async function measureDecoder(
  width: number,
  options: CudaBackendOptions,
  { pixels, runs }: RunSizes,
) {
  const backend = await createCudaBackend(options);
  try {
    const { program, close } = await openDecoder(backend, pixels, width);
    const { first, run } = await runSeconds(program, runs);
    const outputs = Object.keys(program.plan.outputs);
    const isFinite = outputs.every((name) => program.read(name).toFloat32().every(Number.isFinite));
    await close();
    const { devicePeak } = backend.memory();
    return { isFinite, seconds: { first, decode: run }, bytes: { devicePeak } };
  } finally {
    await backend.close();
  }
}

/** Loading a bfloat16 checkpoint, from the page cache if it fits there, quantized to NF4 on the way. */
export async function measureLoad(config: Config, folder: string, options: CudaBackendOptions) {
  const transformer = join(folder, "transformer");
  if (!existsSync(transformer)) await writeRandomTransformer(transformer, config);
  const { config: quantizationConfig } = parseQuantizeFlag("bitsandbytes:nf4");
  const component = await openComponent(
    folder,
    "transformer",
    (json) => new FluxTransformer2DModel(json),
    { quantizationConfig },
  );
  const step = new OneStep(await createCudaBackend(options), component, 16);
  try {
    const [, load] = await timed(() => step.loadAll());
    return {
      seconds: { load },
      bytes: { devicePeak: step.backend.memory().devicePeak, process: process.memoryUsage().rss },
    };
  } finally {
    await step.close();
  }
}

/** A step of Diffusers' transformer in bfloat16; a first run compiles. */
export async function measureTorch(
  python: string,
  device: string,
  mode: string,
  config: Config,
  { pixels, runs }: RunSizes,
) {
  const words = ["flux_step", device, 1, pixels, mode, JSON.stringify(config)];
  const contender = await openTorch(`torch ${mode}`, python, words, []);
  try {
    const first = (await contender.run(0)).wall;
    const clock: number[] = [];
    for (let run = 1; run <= runs; run++) clock.push((await contender.run(run)).wall);
    return { version: contender.version, seconds: { firstStep: first, step: median(clock) } };
  } finally {
    await contender.close();
  }
}
