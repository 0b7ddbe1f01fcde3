/** A denoising step of a transformer with random weights, as a contender. */

import type { Config } from "../src/io/config.ts";
import type { ActivationMode } from "../src/ops/activation_mode.ts";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";
import { OneStep, type StepOptions } from "./one_step.ts";
import { randomTransformer } from "./random_transformer.ts";
import { type Contender, timed } from "./suite/measure.ts";

const RESIDENT_BYTES = 2.5 * 2 ** 30;

/** What is computed, and how. */
export interface RandomStep extends StepOptions {
  readonly config: Config;
  /** Of a picture's side. */
  readonly pixels: number;
  readonly threads: number;
  /** METHOD:FORMAT. */
  readonly quantize: string;
  readonly activations?: ActivationMode;
}

/** A contender that keeps its program open between turns. */
export async function openRandomStep(
  name: string,
  { config, pixels, threads, quantize, activations, ...options }: RandomStep,
): Promise<Contender> {
  const component = await randomTransformer(config, quantize, activations);
  const memory = { threads, residentWeightBytes: RESIDENT_BYTES };
  const step = await OneStep.open(component, pixels, { ...memory, ...options });
  const modulation = await step.modulation();
  await step.load();
  const finished = Promise.withResolvers<void>();
  const ready = Promise.withResolvers<() => Promise<void>>();
  const stepping = step.step(modulation, (program) => {
    ready.resolve(() => program.run());
    return finished.promise;
  });
  stepping.catch(ready.reject);
  const run = await ready.promise;
  return {
    name,
    version: `${runtimeName()} ${runtimeVersion()}`,
    settings: { threads, quantize, activations, ...options },
    run: () => timed(run),
    close: async () => {
      finished.resolve();
      await stepping;
      await step.close();
    },
  };
}
