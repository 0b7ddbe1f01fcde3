/** FLUX.1 [schnell]'s shape with random NF4 weights on disk: one step of a 256 x 256 picture. */

import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { OneStep } from "../one_step.ts";
import { totalOperations } from "../operations.ts";
import { peakOfThisProcess } from "../process_memory.ts";
import { fluxConfig, parameterCount, writeRandomTransformer } from "../random_transformer.ts";
import type { Section, SectionOptions, SectionResult } from "../suite/section.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { openComponent } from "../../src/pipelines/component.ts";

const CONFIG = fluxConfig(19, 38);
const TINY_CONFIG = fluxConfig(1, 1, 2);
const FORMAT = "bitsandbytes:nf4";
const PIXELS = 256;
const THREADS = 2;
/** Weights that stay inside WebAssembly memory; the rest streams through it. */
const RESIDENT_BYTES = 256 * 2 ** 20;
const TINY_RESIDENT_BYTES = 2 ** 20;

/** The section. */
export const fluxSchnell: Section = {
  about:
    "FLUX.1 [schnell]'s shape, 12 billion random NF4 weights: a step of 256 x 256 (needs 7 GB of disk)",
  perRuntime: false,
  onlyByName: true,
  run: async (options) => {
    const folder = await randomModel(options);
    const component = await openComponent(
      folder,
      "transformer",
      (json) => new FluxTransformer2DModel(json),
      {},
    );
    const step = await OneStep.open(component, PIXELS, {
      threads: THREADS,
      residentWeightBytes: options.tiny ? TINY_RESIDENT_BYTES : RESIDENT_BYTES,
    });
    try {
      const stored = folderBytes(join(folder, "transformer"));
      return await measured(step, stored, parameterCount(configOf(options)));
    } finally {
      await step.close();
    }
  },
};

function configOf({ tiny }: SectionOptions) {
  return tiny ? TINY_CONFIG : CONFIG;
}

/** Writes the checkpoint where it is missing. */
async function randomModel(options: SectionOptions): Promise<string> {
  const folder = join(options.models, options.tiny ? "tiny-nf4" : "flux-schnell-nf4");
  const transformer = join(folder, "transformer");
  if (!existsSync(join(transformer, "config.json"))) {
    await writeRandomTransformer(transformer, configOf(options), FORMAT);
  }
  return folder;
}

async function measured(
  step: OneStep,
  storedBytes: number,
  parameters: number,
): Promise<SectionResult> {
  const { modulation: modulationPlan, denoise } = step.plans;
  const planned = step.plannedPeak();
  const [modulation, modulationSeconds] = await seconds(() => step.modulation());
  const [, loadSeconds] = await seconds(() => step.load());
  const [{ finite, runSeconds }] = await seconds(() =>
    step.step(modulation, async (program) => {
      const [, runSeconds] = await seconds(() => program.run());
      return { finite: program.read("velocity").toFloat32().every(Number.isFinite), runSeconds };
    })
  );
  if (!finite) throw new Error("the velocity is not finite");
  const { peak } = step.backend.memory();
  const operations = totalOperations(denoise);
  return {
    figures: [
      { name: "parameters", value: parameters, unit: "weights" },
      { name: "stored", value: storedBytes, unit: "bytes" },
      { name: "peak, planned", value: planned, unit: "bytes" },
      { name: "peak, as the backend counted", value: peak, unit: "bytes" },
      { name: "peak beyond weights", value: peak - denoise.weightBytes, unit: "bytes" },
      { name: "peak of the process", value: peakOfThisProcess(), unit: "bytes" },
      { name: "modulation, loading its weights", value: modulationSeconds, unit: "s" },
      { name: "loading the step's weights", value: loadSeconds, unit: "s" },
      { name: "loading rate", value: denoise.weightBytes / loadSeconds / 1e9, unit: "GB/s" },
      { name: "step", value: runSeconds, unit: "s", detail: { operations } },
      { name: "rate of the step", value: operations / runSeconds / 1e9, unit: "GFLOP/s" },
      {
        name: "weights",
        value: denoise.weightBytes,
        unit: "bytes",
        detail: { modulation: modulationPlan.weightBytes, arena: denoise.arenaBytes },
      },
    ],
  };
}

async function seconds<Result>(work: () => Promise<Result>): Promise<[Result, number]> {
  const started = performance.now();
  const result = await work();
  return [result, (performance.now() - started) / 1000];
}

function folderBytes(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}
