/** One double and one single block of FLUX.1's width, 768 tokens, beside the microkernels alone. */

import { type KernelRate, kernelRates, type Microkernel } from "../kernel_rates.ts";
import { OneStep } from "../one_step.ts";
import { type Operations, operationsOf, totalOperations } from "../operations.ts";
import { fluxConfig, randomTransformer } from "../random_transformer.ts";
import { compare, type Comparison, type Contender, timed } from "../suite/measure.ts";
import type { Figure, Section } from "../suite/section.ts";
import { type ActivationMode, LLM_INT8_ROWS } from "../../src/ops/activation_mode.ts";
import { runtimeName, runtimeVersion } from "../../src/runtime/system.ts";
import { int8Activations } from "../weight_cases.ts";

/** FLUX.1's heads, and 256 image tokens beside 512 of text. */
const FULL = { heads: 24, pixels: 256, kernelRounds: 300 };
const TINY = { heads: 2, pixels: 32, kernelRounds: 3 };
const THREADS = 1;
const RESIDENT_BYTES = 2.5 * 2 ** 30;

/** How weights and activations are stored, and the microkernel that linear layers then run on. */
interface Form {
  readonly name: string;
  readonly quantize: string;
  readonly activations?: ActivationMode;
  readonly microkernel: Microkernel;
}

const FORMS: readonly Form[] = [
  { name: "NF4", quantize: "bitsandbytes:nf4", microkernel: "float" },
  {
    name: "NF4 in 16 bits, int8 activations",
    quantize: "bitsandbytes:nf4",
    activations: { ...LLM_INT8_ROWS, int16Tables: true },
    microkernel: "wide",
  },
  {
    name: "Q4_0, int8 activations",
    quantize: "gguf:Q4_0",
    activations: int8Activations(),
    microkernel: "narrow",
  },
];

/** The section. */
export const blockPair: Section = {
  about:
    "one block pair of FLUX.1's width, 768 tokens, one thread, and the microkernels' own rates",
  perRuntime: true,
  run: async ({ rounds, tiny }) => {
    const sizes = tiny ? TINY : FULL;
    const operations = await operationsOfPair(sizes);
    const comparison = await compare(
      {
        name: "block pair",
        threads: THREADS,
        work: { amount: operations.linear + operations.attention, unit: "FLOP" },
        rounds,
        warmUps: 0, // what engines compile in the first round the median leaves out
        subjects: FORMS.slice(1).map(({ name }) => name),
        sameWork: false,
      },
      FORMS.map((form) => ({ name: form.name, open: () => openPair(form, sizes) })),
    );
    const { rates } = await kernelRates({ strict: false, rounds: sizes.kernelRounds });
    return { comparisons: [comparison], figures: figuresOf(comparison, operations, rates) };
  },
};

async function operationsOfPair({ heads, pixels }: typeof FULL): Promise<Operations> {
  const component = await randomTransformer(fluxConfig(1, 1, heads));
  const step = await OneStep.open(component, pixels, { threads: THREADS });
  const { denoise } = step.plans;
  await step.close();
  if (totalOperations(denoise) === 0) throw new Error("the plan holds no arithmetic");
  return operationsOf(denoise);
}

/** The microkernels' rates, and how much of them each form reached. */
function figuresOf(
  { contenders }: Comparison,
  operations: Operations,
  rates: readonly KernelRate[],
): Figure[] {
  const rateOf = (kernel: Microkernel) => rates.find((rate) => rate.kernel === kernel)?.best;
  const kernels = rates.map(({ kernel, about, best }) => (
    { name: `${kernel} microkernel`, value: best, unit: "GFLOP/s", detail: about }
  ));
  const shares = FORMS.flatMap(({ name, microkernel }) => {
    const measured = contenders.find((one) => one.name === name);
    const [linear, float] = [rateOf(microkernel), rateOf("float")];
    if (!measured || !linear || !float) return [];
    const seconds = operations.linear / linear / 1e9 + operations.attention / float / 1e9;
    const value = 100 * seconds / measured.wall.median;
    return [{ name: `${name}: share`, value, unit: "%", detail: { microkernel, operations } }];
  });
  return [...kernels, ...shares];
}

/** A contender keeps its program open between turns. */
async function openPair(
  { name, quantize, activations }: Form,
  { heads, pixels }: typeof FULL,
): Promise<Contender> {
  const component = await randomTransformer(fluxConfig(1, 1, heads), quantize, activations);
  const options = { threads: THREADS, residentWeightBytes: RESIDENT_BYTES };
  const step = await OneStep.open(component, pixels, options);
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
