/** A few ops as a program of the wasm backend. */

import {
  createWasmBackend,
  type WasmBackend,
  type WasmBackendOptions,
} from "../src/backends/wasm/mod.ts";
import type { Program, StoredWeight } from "../src/backends/backend.ts";
import { Graph, type WeightInfo } from "../src/ops/graph.ts";
import { linear } from "../src/ops/builders.ts";
import { buildPlan } from "../src/plan/build.ts";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { type Contender, timed, type Work } from "./suite/measure.ts";
import { randomFloats, randomWeight, type WeightCase } from "./weight_cases.ts";

/** A program and the backend it runs on. */
export interface OneProgram {
  readonly program: Program;
  readonly build: "plain" | "relaxed";
  close(): Promise<void>;
}

/** Options of a backend of its own, or an open one, which whoever opened it closes. */
export type BackendChoice = WasmBackendOptions & { readonly backend?: WasmBackend };

/** Captures, compiles and loads; `weights` gives each weight's description and its values. */
export async function oneProgram(
  capture: (graph: Graph) => void,
  weights: Readonly<Record<string, { info: WeightInfo; stored: StoredWeight }>> = {},
  { backend: open, ...options }: BackendChoice = {},
): Promise<OneProgram> {
  const backend = open ?? await createWasmBackend(options);
  const graph = new Graph("bench", { lookup: (name) => weights[name]?.info });
  capture(graph);
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const set = await backend.loadWeights(plan.weights, {
    read: ({ name }) => Promise.resolve(weights[name]!.stored),
  });
  const program = await backend.compile(plan, set);
  const close = () => open ? Promise.resolve() : backend.close();
  return { program, build: backend.build, close };
}

/** A linear layer, x [m, k] times a weight [n, k]. */
export interface LinearShape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
}

/** Multiplications and additions of a linear layer. */
export function linearWork({ m, k, n }: LinearShape): Work {
  return { amount: 2 * m * k * n, unit: "FLOP" };
}

/** halftone's linear layer over a stored weight, random unless given. */
export async function openLinear(
  name: string,
  { m, k, n }: LinearShape,
  { format, activations }: WeightCase,
  options: BackendChoice & { stored?: StoredWeight; x?: Float32Array<ArrayBuffer> },
): Promise<Contender> {
  const shape = [n, k];
  const { stored = randomWeight(shape, format), x = randomFloats(m * k), ...rest } = options;
  const opened = await oneProgram(
    (graph) => graph.output("y", linear(graph.input("x", [m, k]), graph.weight("w", shape))),
    { w: { info: { shape, format, activations }, stored } },
    rest,
  );
  opened.program.write("x", HostTensor.fromFloat32(x, [m, k]));
  return programContender(name, opened, { threads: rest.threads, activations });
}

/** A program as a contender whose result is called "y". */
export function programContender(
  name: string,
  { program, build, close }: OneProgram,
  settings: Readonly<Record<string, unknown>>,
): Contender {
  return {
    name,
    version: `${runtimeName()} ${runtimeVersion()}`,
    settings: { ...settings, build },
    run: () => timed(() => program.run()),
    output: () => Promise.resolve(program.read("y").toFloat32()),
    close,
  };
}
