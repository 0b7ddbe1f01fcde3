/** Runs one captured forward on the reference backend over weights held in memory. */

import { readFileSync } from "node:fs";
import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import type { WeightSource } from "../../src/backends/backend.ts";
import { parseSafetensors } from "../../src/io/safetensors.ts";
import { Graph, type WeightCatalog } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

/** Tensors by name. */
export type Tensors = ReadonlyMap<string, HostTensor>;

/** The folder of golden files. */
export const GOLDENS: string = new URL("../goldens/", import.meta.url).pathname;

/** All tensors of a safetensors file. */
export function loadTensors(path: string): Map<string, HostTensor> {
  return parseSafetensors(new Uint8Array(readFileSync(path)), path);
}

/** A parsed JSON file. */
export function loadJson(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, "utf8"));
}

/** The catalog of dense weights. */
export function denseCatalog(weights: Tensors): WeightCatalog {
  return {
    lookup: (name) => {
      const tensor = weights.get(name);
      return tensor && {
        shape: tensor.shape,
        format: { kind: "dense", dtype: tensor.dtype },
        activations: { kind: "float" },
      };
    },
  };
}

/** Weights in the form and order the plan asks for. */
export function denseSource(weights: Tensors): WeightSource {
  return {
    read: ({ name, format, arrangement }) => {
      const stored = weights.get(name)!;
      const arranged = arrangement === "rows" ? stored : channelsLast(stored);
      const dtype = format.kind === "dense" ? format.dtype : stored.dtype;
      return Promise.resolve({ kind: "dense", tensor: arranged.cast(dtype) });
    },
  };
}

/** [out, in, height, width] -> [out, height, width, in]. */
function channelsLast(weight: HostTensor): HostTensor {
  const [out, channels, height, width] = weight.shape;
  const from = weight.toFloat32();
  const to = new Float32Array(from.length);
  let at = 0;
  for (let o = 0; o < out; o++) {
    for (let pixel = 0; pixel < height * width; pixel++) {
      for (let c = 0; c < channels; c++) {
        to[at++] = from[(o * channels + c) * height * width + pixel];
      }
    }
  }
  return HostTensor.fromFloat32(to, [out, height, width, channels]);
}

/** Captures, plans and runs one forward over dense weights; returns its outputs. */
export function runModel(
  weights: Tensors,
  capture: (graph: Graph) => void,
  inputs: Readonly<Record<string, HostTensor>>,
): Promise<Record<string, HostTensor>> {
  return runForward(denseCatalog(weights), denseSource(weights), capture, inputs);
}

/** Captures, plans and runs one forward; returns its outputs. */
export async function runForward(
  catalog: WeightCatalog,
  source: WeightSource,
  capture: (graph: Graph) => void,
  inputs: Readonly<Record<string, HostTensor>>,
): Promise<Record<string, HostTensor>> {
  const backend = createReferenceBackend();
  const graph = new Graph("test", catalog);
  capture(graph);
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const set = await backend.loadWeights(plan.weights, source);
  const program = await backend.compile(plan, set);
  for (const [name, tensor] of Object.entries(inputs)) program.write(name, tensor);
  await program.run();
  const outputs = Object.fromEntries(
    Object.keys(plan.outputs).map((name) => [name, program.read(name)]),
  );
  await backend.close();
  return outputs;
}

/** The largest difference, relative to the largest expected value. */
export function relativeError(found: Float32Array, expected: Float32Array): number {
  if (found.length !== expected.length) throw new Error(`${found.length} != ${expected.length}`);
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < found.length; i++) {
    // NaN must not pass as a small difference.
    const here = Math.abs(found[i] - expected[i]);
    difference = here <= difference ? difference : here;
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return difference / largest;
}
