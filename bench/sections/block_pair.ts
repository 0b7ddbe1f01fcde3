/**
 * One double and one single block of FLUX.1's width, 768 tokens, beside the microkernels alone.
 *
 * What a processor gives changes by a third from one second to the next where others share it, so microkernels are
 * measured before and after every turn of a block pair, and the turn is held against those rates.
 */

import {
  type KernelBench,
  type KernelRate,
  type Microkernel,
  openKernels,
} from "../kernel_rates.ts";
import { median } from "../machine.ts";
import { OneStep } from "../one_step.ts";
import { type Operations, operationsOf, totalOperations } from "../operations.ts";
import { openRandomStep } from "../random_step.ts";
import { fluxConfig, randomTransformer } from "../random_transformer.ts";
import { compare, type Contender } from "../suite/measure.ts";
import type { Figure, Section } from "../suite/section.ts";
import { type ActivationMode, LLM_INT8_ROWS } from "../../src/ops/activation_mode.ts";
import { int8Activations } from "../weight_cases.ts";

/** FLUX.1's heads, and 256 image tokens beside 512 of text. */
const FULL = { heads: 24, pixels: 256, kernelRounds: 100 };
const TINY = { heads: 2, pixels: 32, kernelRounds: 3 };
const THREADS = 1;

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
    const bench = await openKernels({ strict: false });
    const turns = new Map(FORMS.map(({ name }): [string, Turn[]] => [name, []]));
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
      FORMS.map((form) => ({
        name: form.name,
        open: async () => besideKernels(await openPair(form, sizes), bench, sizes, turns),
      })),
    );
    return { comparisons: [comparison], figures: figuresOf(turns, operations) };
  },
};

/** A turn of a block pair, and what the microkernels reached just before and after it. */
interface Turn {
  /** Of a processor: what others take of it does not count. */
  readonly seconds: number;
  readonly rates: readonly KernelRate[];
}

/** A contender that measures the microkernels around each of its turns. */
function besideKernels(
  contender: Contender,
  bench: KernelBench,
  { kernelRounds }: typeof FULL,
  turns: ReadonlyMap<string, Turn[]>,
): Contender {
  return {
    ...contender,
    run: async (round) => {
      const before = bench.measure(kernelRounds);
      const sample = await contender.run(round);
      const rates = [...before, ...bench.measure(kernelRounds)];
      turns.get(contender.name)!.push({ seconds: sample.processor, rates });
      return sample;
    },
  };
}

async function operationsOfPair({ heads, pixels }: typeof FULL): Promise<Operations> {
  const component = await randomTransformer(fluxConfig(1, 1, heads));
  const step = await OneStep.open(component, pixels, { threads: THREADS });
  const { denoise } = step.plans;
  await step.close();
  if (totalOperations(denoise) === 0) throw new Error("the plan holds no arithmetic");
  return operationsOf(denoise);
}

/** The microkernels' best rates, and how much of what they gave around its turns each form reached. */
function figuresOf(turns: ReadonlyMap<string, readonly Turn[]>, operations: Operations): Figure[] {
  const all = [...turns.values()].flat().flatMap(({ rates }) => rates);
  const kernels = [...new Set(all.map(({ kernel }) => kernel))].map((kernel) => {
    const own = all.filter((rate) => rate.kernel === kernel);
    const best = Math.max(...own.map((rate) => rate.best));
    return {
      name: `${kernel} microkernel`,
      value: best,
      unit: "GFLOP/s",
      detail: { about: own[0]!.about, beside: median(own.map((rate) => rate.median)) },
    };
  });
  const shares = FORMS.flatMap(({ name, microkernel }) => {
    const each = turns.get(name)!.flatMap((turn) => shareOf(turn, operations, microkernel));
    if (each.length === 0) return [];
    const detail = { microkernel, operations, turns: each };
    return [{ name: `${name}: share`, value: median(each), unit: "%", detail }];
  });
  return [...kernels, ...shares];
}

/** The time that the microkernels would have taken over the time of a turn, in per cent. */
function shareOf(
  { seconds, rates }: Turn,
  { linear, attention }: Operations,
  microkernel: Microkernel,
): number[] {
  const rateOf = (kernel: Microkernel) => {
    const own = rates.filter((rate) => rate.kernel === kernel).map((rate) => rate.median);
    return own.reduce((sum, rate) => sum + rate, 0) / own.length;
  };
  const ideal = linear / rateOf(microkernel) / 1e9 + attention / rateOf("float") / 1e9;
  return Number.isFinite(ideal) ? [100 * ideal / seconds] : [];
}

function openPair(
  { name, quantize, activations }: Form,
  { heads, pixels }: typeof FULL,
): Promise<Contender> {
  const config = fluxConfig(1, 1, heads);
  return openRandomStep(name, { config, pixels, threads: THREADS, quantize, activations });
}
