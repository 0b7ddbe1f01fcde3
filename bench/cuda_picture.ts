/** A whole picture on an NVIDIA GPU with random weights: what the device holds at most, planned and counted. */

import type { Program } from "../src/backends/backend.ts";
import { createCudaBackend, type CudaBackendOptions } from "../src/backends/cuda/mod.ts";
import { fluxTraits } from "../src/pipelines/flux_components.ts";
import { fluxStages, placeWeights, planStages, sizedStages } from "../src/pipelines/flux_stages.ts";
import { latentSizes } from "../src/pipelines/latents.ts";
import { plannedMemory } from "../src/pipelines/memory_plan.ts";
import { StageClock } from "../src/pipelines/stage_clock.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";
import { elementCount } from "../src/tensor/shape.ts";
import { randomFlux, type RandomFluxSizes } from "./random_flux.ts";

const STEPS = 28;
/** Ids of tokens are below it, as every vocabulary is larger. */
const IDS = 256;

/** Stages in the order of a run, each loaded, run once and let go as a pipeline that keeps no encoder does. */
export async function measurePicture(
  flux: RandomFluxSizes,
  format: string,
  options: CudaBackendOptions,
  { pixels, textTokens = 512 }: { readonly pixels: number; readonly textTokens?: number },
) {
  const components = await randomFlux(flux, format);
  const backend = await createCudaBackend(options);
  try {
    const policy = { keepTextEncoders: false, keepModulation: false, vaeTiling: false };
    const stages = fluxStages(components, backend, new StageClock(), policy);
    placeWeights(stages, backend);
    const { scaleFactor, inChannels } = fluxTraits(components);
    const latents = latentSizes({ width: pixels, height: pixels }, scaleFactor, inChannels);
    const tokens = { textTokens, maxSequenceLength: textTokens };
    const sized = sizedStages(stages, { ...latents, ...tokens, steps: STEPS });
    const { devicePeak: planned } = plannedMemory(planStages(sized, backend), true);
    const started = performance.now();
    const peaks: Record<string, number | undefined> = {};
    let isFinite = true;
    for (const { stage, sizes } of sized) {
      await stage.run(sizes, {}, async (program) => {
        writeRandom(program);
        await program.run();
        isFinite &&= hasFiniteOutputs(program);
      });
      peaks[stage.name] = backend.memory().devicePeak;
    }
    const bytes = { plannedDevicePeak: planned, devicePeak: backend.memory().devicePeak };
    const seconds = { picture: (performance.now() - started) / 1000 };
    return { isFinite, stepsRun: 1, bytes: { ...bytes, peakAfter: peaks }, seconds };
  } finally {
    await backend.close();
  }
}

function writeRandom(program: Program): void {
  for (const [name, { shape, dtype }] of Object.entries(program.plan.inputs)) {
    const ids = () => Int32Array.from({ length: elementCount(shape) }, (_, i) => i % IDS);
    const value = dtype === "int32"
      ? HostTensor.fromInt32(ids(), shape)
      : new TorchGenerator(0).randn(shape);
    program.write(name, value);
  }
}

function hasFiniteOutputs(program: Program): boolean {
  return Object.keys(program.plan.outputs)
    .every((name) => program.read(name).toFloat32().every(Number.isFinite));
}
