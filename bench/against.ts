/**
 * The wasm backend of this checkout against that of another, in turns in one process: the other's processor time
 * over this one's, so that over 1 this one is faster. The median over the turns, between their quarters.
 *
 *     deno run -A bench/against.ts --base CHECKOUT [--threads 1] [--turns 31] CASE...
 *     bun bench/against.ts ...
 *
 * Deno needs --node-modules-dir=manual where the other checkout has a node_modules of its own.
 *
 * Cases are named in kernel_cases.ts, such as "linear:1056x1024x1024+1024:int4 group 32 x int8" or attention:1056x8x128.
 */

import { resolve } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type { Program } from "../src/backends/backend.ts";
import type { Graph } from "../src/ops/graph.ts";
import { runtimeName } from "../src/runtime/system.ts";
import { elementCount } from "../src/tensor/shape.ts";
import { type Case, kernelCase } from "./kernel_cases.ts";
import { median } from "./machine.ts";
import { timed } from "./suite/measure.ts";
import { randomFloats } from "./weight_cases.ts";

const WARM_UPS = 4;

/** A checkout with a backend of its own. */
interface Checkout {
  open(one: Case, values: Values): Promise<Program>;
  close(): Promise<void>;
}

type Values = ReadonlyMap<string, Float32Array<ArrayBuffer>>;

async function openCheckout(folder: string, threads: number): Promise<Checkout> {
  const own = (file: string) => import(pathToFileURL(resolve(folder, file)).href);
  const { createWasmBackend } = await own("src/backends/wasm/mod.ts");
  const { oneProgram } = await own("bench/one_program.ts");
  const { HostTensor } = await own("src/tensor/host_tensor.ts");
  const operations = await own("src/ops/builders.ts");
  const backend = await createWasmBackend({ threads });
  const capture = (one: Case) => (graph: Graph) => {
    const inputs = Object.entries(one.inputs).map(([name, shape]) => graph.input(name, shape));
    const outputs = one.capture(graph, operations, inputs);
    outputs.forEach((output, index) => graph.output(`y${index}`, output));
  };
  const open = async (one: Case, values: Values) => {
    const { program } = await oneProgram(capture(one), one.weights, { backend });
    for (const [name, numbers] of values) {
      program.write(name, HostTensor.fromFloat32(numbers, one.inputs[name]));
    }
    return program;
  };
  return { open, close: () => backend.close() };
}

/** Times a case in turns; seconds of processor time of both. */
async function takeTurns(programs: readonly Program[], turns: number): Promise<number[][]> {
  const seconds = programs.map((): number[] => []);
  for (let turn = -WARM_UPS; turn < turns; turn++) {
    for (const index of turn % 2 ? [0, 1] : [1, 0]) {
      const { processor } = await timed(() => programs[index]!.run());
      if (turn >= 0) seconds[index]!.push(processor);
    }
  }
  return seconds;
}

async function measure(name: string, checkouts: readonly Checkout[], turns: number): Promise<void> {
  const one = kernelCase(name);
  const values = new Map(
    Object.entries(one.inputs).map(([input, shape]) => [input, randomFloats(elementCount(shape))]),
  );
  const programs: Program[] = [];
  for (const { open } of checkouts) programs.push(await open(one, values));
  const [base, own] = await takeTurns(programs, turns) as [number[], number[]];
  const ratios = base.map((seconds, turn) => seconds / own[turn]!).sort((a, b) => a - b);
  const [low, high] = [0.25, 0.75].map((part) => ratios[Math.floor(part * (turns - 1))]!);
  const rate = (seconds: readonly number[]) => (one.work / median(seconds) / 1e9).toFixed(1);
  console.log(
    `${runtimeName()} ${name}: ${median(ratios).toFixed(3)} (${low!.toFixed(3)} to ${
      high!.toFixed(3)
    }), from ${rate(base)} to ${rate(own)} G/s; results differ by ${distance(programs)}`,
  );
  for (const program of programs) program.release();
}

/** The largest difference of any two numbers of the results. */
function distance([base, own]: readonly Program[]): number {
  let most = 0;
  for (const name of Object.keys(own!.plan.outputs)) {
    const [a, b] = [base!, own!].map((program) => program.read(name).toFloat32());
    a!.forEach((value, index) => most = Math.max(most, Math.abs(value - b![index]!)));
  }
  return most;
}

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    base: { type: "string" },
    threads: { type: "string", default: "1" },
    turns: { type: "string", default: "31" },
  },
});
if (!values.base) throw new Error("--base CHECKOUT names the other checkout");
const here = fileURLToPath(new URL("..", import.meta.url));
const checkouts: Checkout[] = [];
for (const folder of [values.base, here]) {
  checkouts.push(await openCheckout(folder, Number(values.threads)));
}
for (const name of positionals) await measure(name, checkouts, Number(values.turns));
for (const { close } of checkouts) await close();
