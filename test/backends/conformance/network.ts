/** A small network that uses every op, for tests of whole programs. */

import type { Backend, Program, WeightSet } from "../../../src/backends/backend.ts";
import {
  add,
  attention,
  concat,
  conv2d,
  embedding,
  geluTanh,
  groupNorm,
  headNormRope,
  layerNorm,
  linear,
  modulate,
  multiply,
  silu,
  upsampleNearest2x,
} from "../../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../../src/ops/graph.ts";
import type { OpName } from "../../../src/ops/op_table.ts";
import { buildPlan } from "../../../src/plan/build.ts";
import type { Plan } from "../../../src/plan/plan.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { cos, sin } from "../../../src/tensor/math.ts";
import { FORMATS } from "./formats.ts";
import { Random, randomValues } from "./random.ts";
import { denseWeight, TestWeights } from "./weights.ts";

/** Sizes of the network. */
export interface NetworkSizes {
  readonly tokens: number;
  readonly width: number;
  readonly heads: number;
  readonly blocks: number;
}

/** The usual sizes: a few milliseconds a run. */
export const SMALL: NetworkSizes = { tokens: 12, width: 32, heads: 2, blocks: 2 };

/** A network with its weights and inputs. */
export interface Network {
  readonly weights: TestWeights;
  readonly inputs: Readonly<Record<string, HostTensor>>;
  /** Captures it anew: a graph is used up by planning. */
  capture(): Graph;
}

/** The plan of a network for a backend. */
export function planNetwork(
  network: Network,
  options: { supports: (op: OpName) => boolean; fuse?: boolean },
): Plan {
  return buildPlan(network.capture(), options);
}

/** A network loaded, compiled and with its inputs written. */
export async function compileNetwork(
  backend: Backend,
  network: Network,
): Promise<{ plan: Plan; program: Program; weights: WeightSet }> {
  const plan = planNetwork(network, { supports: (op) => backend.supports(op) });
  const weights = await backend.loadWeights(plan.weights, network.weights);
  const program = await backend.compile(plan, weights);
  for (const [name, tensor] of Object.entries(network.inputs)) program.write(name, tensor);
  return { plan, program, weights };
}

/** A transformer over embedded ids and latents, then a small decoder to a picture. */
export function makeNetwork(sizes: NetworkSizes = SMALL, seed = 1): Network {
  const { tokens, width, heads, blocks } = sizes;
  const random = new Random(seed);
  const weights = new TestWeights();
  const matrix = (name: string, rows: number, columns: number, format: string) => {
    const made = FORMATS.find((candidate) => candidate.name === format)!;
    weights.add(name, made.make(random, rows, columns));
  };
  const vector = (name: string, size: number) =>
    weights.add(name, denseWeight(random, "bfloat16", [size]));
  matrix("embedding", 16, width, "bfloat16");
  for (let block = 0; block < blocks; block++) {
    matrix(`${block}.qkv`, 3 * width, width, "4-bit table, 64 f32");
    vector(`${block}.qkv.bias`, 3 * width);
    vector(`${block}.q_norm`, width / heads);
    matrix(`${block}.out`, width, width, "float16");
    matrix(`${block}.up`, 4 * width, width, "bfloat16");
    vector(`${block}.up.bias`, 4 * width);
    matrix(`${block}.down`, width, 4 * width, "float32");
  }
  vector("group.weight", width);
  vector("group.bias", width);
  weights.add("conv", denseWeight(random, "bfloat16", [8, width, 3, 3], { scale: 1 / 16 }));
  vector("conv.bias", 8);
  const inputs = {
    ids: HostTensor.fromInt32(Int32Array.from({ length: 4 }, () => random.integer(0, 15))),
    latents: matrixInput(random, tokens, width),
    modulation: matrixInput(random, 1, 3 * width),
    ...ropeInputs(random, tokens + 4, width / heads),
  };
  return { weights, inputs, capture: () => captureNetwork(weights, sizes) };
}

function matrixInput(random: Random, rows: number, columns: number): HostTensor {
  return HostTensor.fromFloat32(randomValues(random, rows * columns, columns), [rows, columns]);
}

function ropeInputs(random: Random, rows: number, d: number) {
  const angles = randomValues(random, rows * d, d);
  return {
    cos: HostTensor.fromFloat32(angles.map(cos), [rows, d]),
    sin: HostTensor.fromFloat32(angles.map(sin), [rows, d]),
  };
}

function captureNetwork(weights: TestWeights, sizes: NetworkSizes): Graph {
  const { tokens, width, heads, blocks } = sizes;
  const graph = new Graph("network", weights);
  const ids = graph.input("ids", [4], "int32");
  const latents = graph.input("latents", [tokens, width]);
  const modulation = graph.input("modulation", [1, 3 * width]);
  const cos = graph.input("cos", [tokens + 4, width / heads]);
  const sin = graph.input("sin", [tokens + 4, width / heads]);
  const text = embedding(ids, graph.weight("embedding", [16, width]));
  let x = concat([text, latents], 0);
  for (let block = 0; block < blocks; block++) {
    x = transformerBlock(graph, x, modulation, { cos, sin }, `${block}`, width, heads);
  }
  graph.output("tokens", x);
  graph.output("picture", decoder(graph, x, tokens, width));
  return graph;
}

function transformerBlock(
  graph: Graph,
  x: Tensor,
  modulation: Tensor,
  rope: { cos: Tensor; sin: Tensor },
  name: string,
  width: number,
  heads: number,
): Tensor {
  const part = (index: number) => modulation.slice(1, index * width, (index + 1) * width);
  const normed = modulate(layerNorm(x, { epsilon: 1e-6 }), part(0), part(1));
  const qkv = linear(
    normed,
    graph.weight(`${name}.qkv`, [3 * width, width]),
    graph.weight(`${name}.qkv.bias`, [3 * width]),
  );
  const [q, k, v] = [0, 1, 2].map((i) => qkv.slice(1, i * width, (i + 1) * width));
  const norm = { heads, weight: graph.weight(`${name}.q_norm`, [width / heads]), epsilon: 1e-6 };
  const scale = 1 / Math.sqrt(width / heads);
  const mixed = attention(
    headNormRope(q, { ...norm, ...rope }),
    headNormRope(k, { ...norm, ...rope }),
    v,
    { heads, scale },
  );
  const attended = linear(mixed, graph.weight(`${name}.out`, [width, width]));
  const y = add(x, multiply(part(2), attended));
  const up = linear(
    layerNorm(y, { epsilon: 1e-6 }),
    graph.weight(`${name}.up`, [4 * width, width]),
    graph.weight(`${name}.up.bias`, [4 * width]),
  );
  return add(y, linear(geluTanh(up), graph.weight(`${name}.down`, [width, 4 * width])));
}

function decoder(graph: Graph, x: Tensor, tokens: number, width: number): Tensor {
  const image = x.slice(0, 4, tokens + 4).reshape([tokens / 4, 4, width]);
  const normed = groupNorm(image, {
    groups: 4,
    epsilon: 1e-6,
    weight: graph.weight("group.weight", [width]),
    bias: graph.weight("group.bias", [width]),
  });
  return conv2d(
    upsampleNearest2x(silu(normed)),
    graph.weight("conv", [8, width, 3, 3], "convolution"),
    graph.weight("conv.bias", [8]),
    { kernel: 3, padding: 1 },
  );
}
