/**
 * Where the time of a picture goes: every step of every plan timed on the wasm backend, the least of all
 * its runs, summed by op and shape.
 *
 *     deno run -A bench/profile.ts FOLDER [--threads 2] [--steps 4] [--repeats 3] [--width 128]
 *         [--height 128] [--max-sequence-length 32] [--quantize METHOD:FORMAT] [--activations int8]
 *         [--top 25] [--json]
 *     deno run -A bench/profile.ts block-pair|decoder [--channels 128] ...
 *
 * Instead of a model's folder: one double and one single block of FLUX.1's width, or FLUX.1's picture decoder, with
 * random weights and --width pixels square; --steps does not matter then. --channels are those of the decoder's finest
 * resolution.
 * A run's own time is the sum of its steps; what the pipeline does between runs is not in it. Operations are those of the
 * op as it is defined: 9 products of each channel for a pixel of a 3 x 3 convolution, where the kernel mostly takes 4,
 * and 2.25 in a picture enlarged twice.
 */

import { parseArgs } from "node:util";
import { createWasmBackend } from "../src/backends/wasm/mod.ts";
import { FluxPipeline } from "../src/pipelines/flux.ts";
import type { Plan, PlanOperand, PlanStep } from "../src/plan/plan.ts";
import type { ActivationChoice } from "../src/quantization/activation_choice.ts";
import { parseQuantizeFlags } from "../src/quantization/formats.ts";
import { thisMachine } from "./machine.ts";
import { OneStep } from "./one_step.ts";
import { openDecoder } from "./random_decoder.ts";
import { fluxConfig, randomTransformer } from "./random_transformer.ts";

const FLUX_HEADS = 24;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "2" },
    steps: { type: "string", default: "4" },
    repeats: { type: "string", default: "3" },
    width: { type: "string", default: "128" },
    height: { type: "string", default: "128" },
    "max-sequence-length": { type: "string", default: "32" },
    channels: { type: "string", default: "128" },
    quantize: { type: "string", multiple: true, default: [] },
    activations: { type: "string" },
    top: { type: "string", default: "25" },
    json: { type: "boolean", default: false },
  },
});

/** What random weights can run, by its name. */
const RANDOM: Readonly<Record<string, (() => Promise<void>) | undefined>> = {
  "block-pair": runBlockPair,
  decoder: runDecoder,
};

/** A plan's steps over all runs. */
interface PlanTimes {
  readonly plan: Plan;
  readonly least: Float64Array;
  runs: number;
}

const seen = new Map<string, PlanTimes>();

function note(plan: Plan, milliseconds: Float64Array): void {
  const entry = seen.get(plan.hash);
  if (!entry) return void seen.set(plan.hash, { plan, least: milliseconds.slice(), runs: 1 });
  entry.runs++;
  milliseconds.forEach((time, step) => entry.least[step] = Math.min(entry.least[step]!, time));
}

function shapeOf(plan: Plan, operand: PlanOperand | null): readonly number[] {
  if (operand === null) return [];
  return operand.kind === "weight" ? plan.weights[operand.weight]!.shape : operand.shape;
}

/** What a step is: op and sizes. */
function describe(plan: Plan, step: PlanStep): string {
  const [first = [], second = []] = step.inputs.map((input) => shapeOf(plan, input));
  const by = ["linear", "conv2d", "attention", "matmul"].includes(step.op) ? ` by ${second}` : "";
  const scaled = step.op === "conv2d" && step.attributes.upsample === 2 ? ", enlarged twice" : "";
  return `${step.op} ${first}${by}${scaled}`;
}

/** Floating-point operations of the products in a step, summed as the op is defined. */
function operations(plan: Plan, step: PlanStep): number {
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  const [first = [], second = []] = step.inputs.map((input) => shapeOf(plan, input));
  switch (step.op) {
    case "linear":
    case "conv2d":
      return 2 * size(step.output.shape) * size(second.slice(1));
    case "matmul":
      return 2 * size(step.output.shape) * first.at(-1)!;
    case "attention":
      return 4 * size(first) * second[0]!;
    default:
      return 0;
  }
}

/** Milliseconds, steps and operations of one kind of step in a whole picture. */
interface Group {
  milliseconds: number;
  steps: number;
  operations: number;
}

function groups(pictures: number): Map<string, Group> {
  const all = new Map<string, Group>();
  for (const { plan, least, runs } of seen.values()) {
    plan.steps.forEach((step, index) => {
      const name = `${plan.name.padEnd(12)} ${describe(plan, step)}`;
      const group = all.get(name) ?? { milliseconds: 0, steps: 0, operations: 0 };
      group.milliseconds += least[index]! * runs / pictures;
      group.steps += runs / pictures;
      group.operations += operations(plan, step) * runs / pictures;
      all.set(name, group);
    });
  }
  return all;
}

function print(all: ReadonlyMap<string, Group>): void {
  const sorted = [...all].sort(([, a], [, b]) => b.milliseconds - a.milliseconds);
  const total = sorted.reduce((sum, [, group]) => sum + group.milliseconds, 0);
  const steps = sorted.reduce((sum, [, group]) => sum + group.steps, 0);
  console.log(`a picture: ${total.toFixed(1)} ms in ${steps} steps`);
  for (const [name, group] of sorted.slice(0, Number(values.top))) {
    const share = (100 * group.milliseconds / total).toFixed(1).padStart(5);
    const each = (1000 * group.milliseconds / group.steps).toFixed(0).padStart(7);
    const rate = group.operations / group.milliseconds / 1e6;
    console.log(
      `${group.milliseconds.toFixed(1).padStart(8)} ms ${share} % ${each} us each x ${
        group.steps.toFixed(0).padEnd(5)
      } ${rate > 0 ? rate.toFixed(1).padStart(6) : "      "} GFLOP/s  ${name}`,
    );
  }
}

async function repeated(run: () => Promise<unknown>): Promise<void> {
  for (let repeat = 0; repeat < Number(values.repeats); repeat++) await run();
}

async function drawPictures(): Promise<void> {
  await using pipeline = await FluxPipeline.fromPretrained(positionals[0]!, {
    backend,
    quantizationConfig: parseQuantizeFlags(values.quantize),
    activations: values.activations as ActivationChoice | undefined,
  });
  await repeated(() =>
    pipeline.generate({
      prompt: "a red star above a blue house on a white background",
      width: Number(values.width),
      height: Number(values.height),
      numInferenceSteps: Number(values.steps),
      maxSequenceLength: Number(values["max-sequence-length"]),
      seed: 0,
    })
  );
}

async function runBlockPair(): Promise<void> {
  const [quantize] = values.quantize;
  const component = await randomTransformer(fluxConfig(1, 1, FLUX_HEADS), quantize);
  const step = new OneStep(backend, component, Number(values.width));
  const modulation = await step.modulation();
  seen.clear(); // the modulation runs once a picture
  await step.load();
  await step.step(modulation, (program) => repeated(() => program.run()));
}

async function runDecoder(): Promise<void> {
  const { program, close } = await openDecoder(
    backend,
    Number(values.width),
    Number(values.channels),
  );
  await repeated(() => program.run());
  await close();
}

const backend = await createWasmBackend({ threads: Number(values.threads), onStepTimes: note });
await (RANDOM[positionals[0]!] ?? drawPictures)();
await backend.close();
const all = groups(Number(values.repeats));
if (values.json) {
  console.log(
    JSON.stringify({ machine: thisMachine(), settings: values, steps: [...all] }, null, 2),
  );
} else {
  print(all);
}
