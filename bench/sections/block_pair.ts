/** One double and one single block of FLUX.1's width, 768 tokens, beside the microkernel alone. */

import { execFileSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { OneStep } from "../one_step.ts";
import { totalOperations } from "../operations.ts";
import { fluxConfig, randomTransformer } from "../random_transformer.ts";
import { compare, type Contender, timed } from "../suite/measure.ts";
import type { Figure, Section } from "../suite/section.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import { runtimeName, runtimeVersion } from "../../src/runtime/system.ts";
import { int8Activations } from "../weight_cases.ts";

const CONFIG = fluxConfig(1, 1);
/** 256 image tokens and 512 of text. */
const PIXELS = 256;
const THREADS = 1;
const RESIDENT_BYTES = 2.5 * 2 ** 30;
/** kernels-wasm/src/microkernel.rs, as bench/microkernels.ts calls it. */
const FLOAT_MICROKERNEL = "6x8s8";

const FORMS: readonly { name: string; quantize?: string; activations?: ActivationMode }[] = [
  { name: "bfloat16" },
  { name: "NF4", quantize: "bitsandbytes:nf4" },
  { name: "Q4_0", quantize: "gguf:Q4_0" },
  { name: "NF4, int8 activations", quantize: "bitsandbytes:nf4", activations: int8Activations() },
  { name: "Q4_0, int8 activations", quantize: "gguf:Q4_0", activations: int8Activations() },
];

/** The section. */
export const blockPair: Section = {
  about: "one block pair of FLUX.1's width, 768 tokens, one thread, and the microkernel's own rate",
  perRuntime: true,
  run: async ({ rounds }) => {
    const opened = await OneStep.open(await randomTransformer(CONFIG), PIXELS, { threads: 1 });
    const work = { amount: totalOperations(opened.plans.denoise), unit: "FLOP" } as const;
    await opened.close();
    const comparison = await compare(
      {
        name: "block pair",
        threads: THREADS,
        work,
        rounds,
        warmUps: 1,
        subjects: FORMS.slice(1).map(({ name }) => name),
        sameWork: false,
      },
      FORMS.map(({ name, quantize, activations }) => ({
        name,
        open: () => openPair(name, quantize, activations),
      })),
    );
    return { comparisons: [comparison], figures: [microkernelRate()] };
  },
};

/** A contender keeps its program open between turns. */
async function openPair(
  name: string,
  quantize?: string,
  activations?: ActivationMode,
): Promise<Contender> {
  const component = await randomTransformer(CONFIG, quantize, activations);
  const options = { threads: THREADS, residentWeightBytes: RESIDENT_BYTES };
  const step = await OneStep.open(component, PIXELS, options);
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
    settings: { threads: THREADS, quantize, activations },
    run: () => timed(run),
    close: async () => {
      finished.resolve();
      await stepping;
      await step.close();
    },
  };
}

/** The best rate of the float microkernel over panels in the nearest caches. */
function microkernelRate(): Figure {
  const script = fileURLToPath(new URL("../microkernels.ts", import.meta.url));
  const words = runtimeName() === "deno" ? ["run", "-A", "--no-check", script] : [script];
  const text = execFileSync(process.execPath, [...words, FLOAT_MICROKERNEL], { encoding: "utf8" });
  const rate = Number(new RegExp(`^${FLOAT_MICROKERNEL} +([\\d.]+)`, "m").exec(text)?.[1]);
  return { name: "float microkernel", value: rate, unit: "GFLOP/s", detail: FLOAT_MICROKERNEL };
}
