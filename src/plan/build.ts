/** From a captured graph to a plan: fuse, decompose what the backend lacks, place. */

import { decompose } from "../ops/decompose.ts";
import { type Graph, type Operand, type Storage, type Tensor, Weight } from "../ops/graph.ts";
import type { OpName } from "../ops/op_table.ts";
import { weightBytes } from "../quantization/layout_bytes.ts";
import { fuse } from "./fuse.ts";
import { place } from "./place.ts";
import type { ActivationOperand, Plan, PlanOperand, PlanStep, PlanWeight } from "./plan.ts";
import { planHash } from "./print.ts";

/** How a plan is built. */
export interface BuildOptions {
  /** Whether the backend runs an op itself; required ops must be supported. */
  readonly supports: (op: OpName) => boolean;
  /** False leaves the captured ops as they are; for tests of fusion itself. */
  readonly fuse?: boolean;
}

/** Builds the plan of a captured graph; the graph is used up. */
export function buildPlan(graph: Graph, options: BuildOptions): Plan {
  if (options.fuse !== false) fuse(graph);
  decompose(graph, options.supports);
  removeUnread(graph);
  const { buffers, indexOf, arenaBytes } = place(graph);
  const weights = weightsOf(graph);
  const index = new Map(weights.map((weight, i) => [weight, i]));
  const operand = (value: Operand): PlanOperand | null => {
    if (value === null) return null;
    if (value instanceof Weight) return { kind: "weight", weight: index.get(value)! };
    return activation(value, indexOf);
  };
  const steps = graph.nodes.map(({ op, attributes, inputs, output }) =>
    ({
      op,
      attributes,
      inputs: inputs.map(operand),
      output: activation(output, indexOf),
    }) as PlanStep
  );
  const views = (tensors: Map<string, Tensor>) =>
    Object.fromEntries([...tensors].map(([name, tensor]) => [name, activation(tensor, indexOf)]));
  const planWeights = weights.map(planWeight);
  const body = {
    name: graph.name,
    buffers,
    steps,
    weights: planWeights,
    inputs: views(graph.inputs),
    outputs: views(graph.outputs),
    constants: graph.constants.map(({ tensor, value }) => ({
      operand: activation(tensor, indexOf),
      value,
    })),
    arenaBytes,
    weightBytes: planWeights.reduce((sum, weight) => sum + weight.bytes, 0),
  };
  return { ...body, hash: planHash(body) };
}

/** Drops ops whose results nobody reads. */
function removeUnread(graph: Graph): void {
  const read = new Set<Storage>([...graph.outputs.values()].map((tensor) => tensor.storage));
  const kept = graph.nodes.toReversed().filter((node) => {
    if (!read.has(node.output.storage)) return false;
    for (const input of node.inputs) {
      if (input !== null && !(input instanceof Weight)) read.add(input.storage);
    }
    return true;
  });
  graph.nodes = kept.reverse();
}

/** The weights in the order of their first use. */
function weightsOf(graph: Graph): Weight[] {
  const weights = new Set<Weight>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) if (input instanceof Weight) weights.add(input);
  }
  return [...weights];
}

function planWeight({ name, shape, format, arrangement }: Weight): PlanWeight {
  return { name, shape, format, arrangement, bytes: weightBytes(shape, format) };
}

function activation(tensor: Tensor, indexOf: ReadonlyMap<Storage, number>): ActivationOperand {
  const { storage, offset, shape, strides, dtype } = tensor;
  return { kind: "activation", buffer: indexOf.get(storage)!, dtype, offset, shape, strides };
}
