/** Random small graphs, for properties that must hold of any plan. */

import {
  add,
  affine,
  attention,
  concat,
  copy,
  divide,
  geluTanh,
  headNormRope,
  layerNorm,
  linear,
  matmul,
  modulate,
  multiply,
  quickGelu,
  reduce,
  relu,
  rmsNorm,
  silu,
  subtract,
} from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { Random, randomValues } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";

const ROWS = 6;
const WIDTH = 8;

/** A random graph that can be captured again and again, with its weights and inputs. */
export interface RandomGraph {
  readonly weights: TestWeights;
  readonly inputs: Readonly<Record<string, HostTensor>>;
  capture(): Graph;
}

/** A graph of `length` random ops over tensors [6, 8]; a seed gives the same graph every time. */
export function randomGraph(seed: number, length: number): RandomGraph {
  const random = new Random(seed);
  const weights = new TestWeights();
  for (const name of ["w0", "w1"]) {
    weights.add(name, denseWeight(random, "float32", [WIDTH, WIDTH], { scale: 0.25 }));
  }
  weights.add("b", denseWeight(random, "float32", [WIDTH]));
  weights.add("head", denseWeight(random, "float32", [WIDTH / 2]));
  const input = (rows: number) =>
    HostTensor.fromFloat32(randomValues(random, rows * WIDTH, WIDTH), [rows, WIDTH]);
  const inputs = { x: input(ROWS), y: input(ROWS), row: input(1) };
  return { weights, inputs, capture: () => capture(new Random(seed + 1), length, weights) };
}

function capture(random: Random, length: number, weights: TestWeights): Graph {
  const graph = new Graph("random", weights);
  const x = graph.input("x", [ROWS, WIDTH]), y = graph.input("y", [ROWS, WIDTH]);
  const row = graph.input("row", [1, WIDTH]);
  const tensors: Tensor[] = [x, y];
  const rows: Tensor[] = [row];
  for (let i = 0; i < length; i++) {
    // Mostly the newest tensors, so that chains grow that fusion can take.
    const recent = () => tensors[Math.max(0, tensors.length - 1 - random.integer(0, 2))];
    const made = random.pick(OPS)({ graph, random, a: recent(), b: recent(), rows });
    tensors.push(made);
  }
  graph.output("last", tensors.at(-1)!);
  graph.output("middle", tensors[Math.floor(tensors.length / 2)]);
  return graph;
}

interface Surroundings {
  readonly graph: Graph;
  readonly random: Random;
  readonly a: Tensor;
  readonly b: Tensor;
  /** Tensors [1, width]. */
  readonly rows: Tensor[];
}

const OPS: readonly ((around: Surroundings) => Tensor)[] = [
  ({ graph, a }) => linear(a, graph.weight("w0", [WIDTH, WIDTH]), graph.weight("b", [WIDTH])),
  ({ graph, a }) => linear(a, graph.weight("w1", [WIDTH, WIDTH])),
  ({ graph, a, rows, random }) =>
    multiply(random.pick(rows), linear(a, graph.weight("w0", [WIDTH, WIDTH]))),
  ({ graph, a, b, rows, random }) =>
    add(b, multiply(random.pick(rows), linear(a, graph.weight("w1", [WIDTH, WIDTH])))),
  ({ graph, a, b }) => add(b, linear(geluTanh(a), graph.weight("w1", [WIDTH, WIDTH]))),
  ({ graph, a }) => silu(linear(a, graph.weight("w0", [WIDTH, WIDTH]), graph.weight("b", [WIDTH]))),
  ({ graph, a }) => {
    const shared = linear(a, graph.weight("w0", [WIDTH, WIDTH]));
    return multiply(shared, silu(shared));
  },
  ({ a, b }) => add(a, b),
  ({ a, b }) => subtract(b, a),
  ({ a, b }) => multiply(a, relu(b)),
  ({ a }) => divide(a, affine(reduce(multiply(a, a), "mean"), 1, 1)),
  ({ a }) => quickGelu(a),
  ({ a, rows, random }) =>
    modulate(layerNorm(a, { epsilon: 1e-6 }), random.pick(rows), random.pick(rows)),
  ({ graph, a, rows }) => {
    rows.push(affine(a.slice(0, 2, 3), 0.5, 0.25));
    return rmsNorm(a, { epsilon: 1e-6, weight: graph.weight("b", [WIDTH]) });
  },
  ({ a, b }) => concat([a.slice(0, 0, 2), b.slice(0, 2, ROWS)], 0),
  ({ graph, a, b }) =>
    concat([
      linear(a, graph.weight("w0", [WIDTH, WIDTH])).slice(1, 0, 3),
      silu(b).slice(1, 3, WIDTH),
    ], 1),
  ({ a, b }) => {
    const halves = concat([silu(a.slice(1, 0, WIDTH / 2)), layerNorm(b, { epsilon: 1e-5 })], 1);
    return add(halves.slice(1, 1, WIDTH + 1), a);
  },
  ({ graph, a }) => headNormRope(a, { heads: 2, weight: graph.weight("head", [4]), epsilon: 1e-6 }),
  ({ a, b }) => attention(a, b, a, { heads: 2, scale: 0.5 }),
  ({ a, b }) => attention(a, b, b, { heads: 4, scale: 1, causal: true }),
  ({ a, b }) => {
    const product = matmul(a.reshape([1, ROWS, WIDTH]), b.reshape([1, ROWS, WIDTH]), 0.1);
    const mixed = matmul(product, b.reshape([1, ROWS, WIDTH]).permute([0, 2, 1]), 0.1);
    return mixed.reshape([ROWS, WIDTH]);
  },
  ({ a }) => copy(a.reshape([2, 3, WIDTH]).permute([1, 0, 2])).reshape([ROWS, WIDTH]),
];
