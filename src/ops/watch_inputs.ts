/**
 * Makes what calibration wants to know of the inputs of linear layers outputs of the graph. Nothing else
 * changes, but ops that would be fused into what makes an input stay apart.
 */

import { affine, reduce } from "./builders.ts";
import { type Graph, Tensor, Weight } from "./graph.ts";

/** Begins the name of such an output; what follows are a number, a colon and the weights' names. */
const PREFIX = "input ";

/** `weights` of the input that an output is of; "" for other outputs. */
export function watchedWeights(output: string): string {
  return output.startsWith(PREFIX) ? output.slice(output.indexOf(":") + 1) : "";
}

/** The input that some linear layers share. */
export interface WatchedInput {
  readonly matrix: Tensor; // [rows, columns]
  /** The names of the layers' weights, joined by commas. */
  readonly weights: string;
}

/** The largest value and that of its negative, of every row. */
export function rowRanges({ matrix }: WatchedInput): Tensor[] {
  return [matrix, affine(matrix, -1, 0)].map((seen) => reduce(seen, "max")); // [rows, 1]
}

/** All values. */
export function wholeInput({ matrix }: WatchedInput): Tensor[] {
  return [affine(matrix, 1, 0)]; // an op's own output may be a part of what others read
}

/** Adds outputs for every input of linear layers, before the first of the layers. */
export function watchLinearInputs(
  graph: Graph,
  outputsOf: (input: WatchedInput) => Tensor[],
): void {
  const captured = graph.nodes;
  const inputs = inputsByFirstLayer(captured);
  graph.nodes = [];
  let count = 0;
  for (const node of captured) {
    const input = inputs.get(node);
    for (const output of input ? outputsOf(input) : []) {
      graph.output(`${PREFIX}${count++}:${input!.weights}`, output);
    }
    graph.nodes.push(node);
  }
}

type Node = Graph["nodes"][number];

function inputsByFirstLayer(nodes: readonly Node[]): Map<Node, WatchedInput> {
  const layers = new Map<string, { first: Node; matrix: Tensor; names: string[] }>();
  for (const node of nodes) {
    const [matrix, weight] = node.inputs;
    if (node.op !== "linear" || !(weight instanceof Weight && matrix instanceof Tensor)) continue;
    const { storage, offset, shape, strides } = matrix;
    const view = JSON.stringify([storage.id, offset, shape, strides]);
    if (!layers.has(view)) layers.set(view, { first: node, matrix, names: [] });
    layers.get(view)!.names.push(weight.name);
  }
  return new Map([...layers.values()].map(({ first, matrix, names }) => {
    return [first, { matrix, weights: names.join(",") }];
  }));
}
