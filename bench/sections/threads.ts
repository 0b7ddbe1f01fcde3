/** What a second thread brings, to layers and to the float microkernel alone. */

import { runtimeVersion } from "../../src/runtime/system.ts";
import { spawnWorker } from "../../src/runtime/workers.ts";
import type { KernelJob } from "../kernel_worker.ts";
import { linearWork, openLinear } from "../one_program.ts";
import { compare, type Comparison, type Contender, timed } from "../suite/measure.ts";
import type { Section } from "../suite/section.ts";
import { int8Activations, weightCase } from "../weight_cases.ts";

const SHAPE = { m: 768, k: 3072, n: 3072 };
/** Calls of the float microkernel, shared among the threads; each is 6 x 8 sums of 256 products. */
const CALLS = 400_000;
const CALL_OPERATIONS = 2 * 6 * 8 * 256;

/** The section. */
export const threads: Section = {
  about: "two threads against one: float32 and int8 linear 768 x 3072 x 3072",
  perRuntime: true,
  run: async ({ rounds }) => ({
    comparisons: [
      await compared("float32", rounds),
      await compared("int8 row", rounds),
      await kernelCompared(rounds),
    ],
  }),
};

async function compared(form: "float32" | "int8 row", rounds: number) {
  const base = weightCase(form, SHAPE.k);
  const layer = form === "float32" ? base : { ...base, activations: int8Activations() };
  const contender = (count: number, name: string) => ({
    name,
    open: () => openLinear(name, SHAPE, layer, { threads: count }),
  });
  return await compare({
    name: `threads, ${form}`,
    threads: 2,
    work: linearWork(SHAPE),
    rounds,
    subjects: ["two threads"],
    sameWork: false,
  }, [contender(2, "two threads"), contender(1, "one thread")]);
}

/** What the processors give: no layer can gain more from a second thread than its microkernel does. */
async function kernelCompared(rounds: number): Promise<Comparison> {
  const contender = (threads: number, name: string) => ({
    name,
    open: () => openKernelWorkers(name, threads),
  });
  return await compare({
    name: "threads, float microkernel alone",
    threads: 2,
    work: { amount: CALLS * CALL_OPERATIONS, unit: "FLOP" },
    rounds,
    subjects: ["two threads"],
    sameWork: false,
  }, [contender(2, "two threads"), contender(1, "one thread")]);
}

async function openKernelWorkers(name: string, threads: number): Promise<Contender> {
  const url = new URL("../kernel_worker.ts", import.meta.url);
  const workers = Array.from({ length: threads }, (_, i) => spawnWorker(url, `${name} ${i}`));
  const answers = () =>
    Promise.all(workers.map((worker) => new Promise((resolve) => worker.onMessage(resolve))));
  await answers();
  const job: KernelJob = { kind: 0, times: CALLS / threads };
  return {
    name,
    version: runtimeVersion(),
    run: () =>
      timed(() => {
        const done = answers();
        for (const worker of workers) worker.post(job);
        return done;
      }),
    close: () => {
      for (const worker of workers) worker.terminate();
      return Promise.resolve();
    },
  };
}
