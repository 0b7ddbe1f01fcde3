/** What a step of a plan costs beside its arithmetic: a chain of steps over sixteen numbers. */

import { oneProgram } from "../one_program.ts";
import { spread, timed } from "../suite/measure.ts";
import type { Figure, Section } from "../suite/section.ts";
import { affine } from "../../src/ops/builders.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

const STEPS = 4000;
const RUNS_PER_ROUND = 5;

/** The section. */
export const dispatch: Section = {
  about: "microseconds per step of a tiny plan, with the barrier after it",
  perRuntime: true,
  run: async ({ rounds }) => ({
    figures: [await perStep(1, rounds), await perStep(2, rounds), await perRun(2, rounds)],
  }),
};

async function tinyProgram(steps: number, threads: number) {
  const opened = await oneProgram(
    (graph) => {
      let x = graph.input("x", [1, 16]);
      for (let step = 0; step < steps; step++) x = affine(x, 0.5, 1);
      graph.output("y", x);
    },
    {},
    { threads },
  );
  opened.program.write("x", HostTensor.fromFloat32(new Float32Array(16), [1, 16]));
  return opened;
}

/** Microseconds of one run of a tiny plan, the middle of all rounds and the runs in them. */
async function measure(steps: number, threads: number, rounds: number) {
  const { program, close } = await tinyProgram(steps, threads);
  const run = () => timed(() => program.run());
  for (let i = 0; i < RUNS_PER_ROUND; i++) await run();
  const samples: number[] = [];
  for (let i = 0; i < rounds * RUNS_PER_ROUND; i++) samples.push((await run()).wall * 1e6);
  const { plan } = program;
  await close();
  return { steps: plan.steps.length, spread: spread(samples) };
}

async function perStep(threads: number, rounds: number): Promise<Figure> {
  const { steps, spread: { median, least, most } } = await measure(STEPS, threads, rounds);
  return {
    name: `step, ${threads} thread${threads > 1 ? "s" : ""}`,
    value: median / steps,
    unit: "µs",
    detail: { steps, least: least / steps, most: most / steps },
  };
}

/** Waking the workers for a run and waiting for them: once per denoising step, not per op. */
async function perRun(threads: number, rounds: number): Promise<Figure> {
  const { spread: { median, least, most } } = await measure(1, threads, rounds);
  return { name: `run, ${threads} threads`, value: median, unit: "µs", detail: { least, most } };
}
