/**
 * Makes the range of every linear layer's input an output of the graph: for the calibration of static
 * scales. Nothing else changes, but ops that would be fused into what makes an input stay apart.
 */

import { affine, reduce } from "./builders.ts";
import { type Graph, type Tensor, Weight } from "./graph.ts";

/** Begins the name of such an output; what follows are a number, a colon and the weight's name. */
const PREFIX = "range ";

/** The weight whose layer's input an output is of; null for other outputs. */
export function watchedWeight(output: string): string | null {
  return output.startsWith(PREFIX) ? output.slice(output.indexOf(":") + 1) : null;
}

/** Adds for every linear layer the outputs max(x) and max(-x), [rows, 1], before the layer itself. */
export function watchLinearInputs(graph: Graph): void {
  const captured = graph.nodes;
  graph.nodes = [];
  let count = 0;
  for (const node of captured) {
    const [x, weight] = node.inputs;
    if (node.op === "linear" && weight instanceof Weight) {
      const matrix = x as Tensor;
      for (const seen of [matrix, affine(matrix, -1, 0)]) {
        graph.output(`${PREFIX}${count++}:${weight.name}`, reduce(seen, "max"));
      }
    }
    graph.nodes.push(node);
  }
}
