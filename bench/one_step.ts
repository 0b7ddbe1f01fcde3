/** One denoising step of a transformer alone: its plans, its memory and its time. */

import { createWasmBackend, type WasmBackendOptions } from "../src/backends/wasm/mod.ts";
import type { Backend, Program } from "../src/backends/backend.ts";
import type { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { TIMESTEP_CHANNELS, timestepEmbedding } from "../src/models/timestep_embedding.ts";
import type { OpAttributes } from "../src/ops/op_table.ts";
import type { Component } from "../src/pipelines/component.ts";
import { plannedMemory } from "../src/pipelines/memory_plan.ts";
import { Stage } from "../src/pipelines/stage.ts";
import { StageClock } from "../src/pipelines/stage_clock.ts";
import type { Plan } from "../src/plan/plan.ts";
import type { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";

const TEXT_TOKENS = 512;
const PIXELS_PER_TOKEN = 16;

/** What is computed, beside the picture's size. */
export interface StepOptions {
  readonly textTokens?: number;
  readonly qkDtype?: OpAttributes["attention"]["qkDtype"];
}

/** A picture's size as the transformer sees it. */
export function sizesOf(pixels: number, textTokens = TEXT_TOKENS) {
  const side = pixels / PIXELS_PER_TOKEN;
  return { height: side, width: side, textTokens };
}

/** The two plans of a step, on a backend. */
export class OneStep {
  readonly backend: Backend;
  readonly #component: Component<FluxTransformer2DModel>;
  readonly #sizes: ReturnType<typeof sizesOf>;
  readonly #modulation: Stage<{ steps: number }>;
  readonly #denoise: Stage<ReturnType<typeof sizesOf>>;

  /** Takes over both; `close` ends them. */
  constructor(
    backend: Backend,
    component: Component<FluxTransformer2DModel>,
    pixels: number,
    { textTokens, qkDtype }: StepOptions = {},
  ) {
    this.backend = backend;
    this.#component = component;
    this.#sizes = sizesOf(pixels, textTokens);
    const parts = { component, keepsWeights: false, backend, clock: new StageClock() };
    const { model } = component;
    this.#modulation = new Stage({
      ...parts,
      name: "transformer.modulation",
      capture: (graph, sizes) => model.captureModulation(graph, sizes),
    });
    this.#denoise = new Stage({
      ...parts,
      name: "transformer.denoise",
      capture: (graph, sizes) => model.captureDenoise(graph, sizes, { qkDtype }),
    });
  }

  static async open(
    component: Component<FluxTransformer2DModel>,
    pixels: number,
    { textTokens, qkDtype, ...options }: WasmBackendOptions & StepOptions,
  ): Promise<OneStep> {
    const backend = await createWasmBackend(options);
    return new OneStep(backend, component, pixels, { textTokens, qkDtype });
  }

  get plans(): { modulation: Plan; denoise: Plan } {
    return {
      modulation: this.#modulation.plan({ steps: 1 }),
      denoise: this.#denoise.plan(this.#sizes),
    };
  }

  /** What the plans say they need at most, in bytes. */
  plannedPeak(): number {
    return plannedMemory(
      Object.values(this.plans).map((plan) => ({
        name: plan.name,
        plan,
        weightBytes: this.backend.weightBytes?.(plan) ?? plan.weightBytes,
        keepsWeights: false,
        streamsWeights: false,
        scratchBytes: this.backend.scratchBytes(plan),
      })),
    ).peak;
  }

  /** Computes the modulation of the step and lets its weights go. */
  modulation(): Promise<HostTensor> {
    const pooled = this.#component.model.config.pooledProjectionDim;
    return this.#modulation.run({ steps: 1 }, {}, async (program) => {
      program.write("timestep", timestepEmbedding([1000], TIMESTEP_CHANNELS));
      program.write("pooled", noise([1, pooled]));
      await program.run();
      return program.read("modulation");
    });
  }

  /** Loads the weights of the step. */
  load(): Promise<void> {
    return this.#denoise.load(this.#sizes);
  }

  /** Loads all weights of the transformer, those of the modulation too. */
  async loadAll(): Promise<void> {
    await this.#modulation.load({ steps: 1 });
    await this.load();
  }

  /** Lets an action run the step with all its inputs in place. */
  step<Result>(
    modulation: HostTensor,
    action: (program: Program) => Promise<Result>,
  ): Promise<Result> {
    const { height, width, textTokens } = this.#sizes;
    const { inChannels, jointAttentionDim } = this.#component.model.config;
    return this.#denoise.run(this.#sizes, {}, async (program) => {
      program.write("modulation", modulation);
      program.write("latents", noise([height * width, inChannels]));
      program.write("text", noise([textTokens, jointAttentionDim]));
      return await action(program);
    });
  }

  async close(): Promise<void> {
    await this.backend.close();
    await this.#component.close();
  }
}

function noise(shape: readonly number[]): HostTensor {
  return new TorchGenerator(0).randn(shape);
}
