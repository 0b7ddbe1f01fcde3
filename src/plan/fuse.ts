/**
 * Fusion: rewrites of a captured graph that save passes over memory. Each rule looks at one node and
 * the node that produced one of its operands; the producer must be read by nobody else.
 */

import { contiguousStrides, sameShape } from "../tensor/shape.ts";
import { type Graph, type GraphNode, type Operand, type Storage, Tensor } from "../ops/graph.ts";
import { isMatrix } from "../ops/builders.ts";
import type { Activation } from "../ops/op_table.ts";

type Node<Op extends GraphNode["op"]> = Extract<GraphNode, { op: Op }>;

const ACTIVATIONS: readonly string[] = [
  "silu",
  "gelu_tanh",
  "gelu_erf",
  "quick_gelu",
  "relu",
] satisfies Activation[];

/** Fuses in place: activations, gates, residuals, modulation, upsampling, concatenation. */
export function fuse(graph: Graph): void {
  for (const rule of [fuseActivation, fuseGate, fuseResidual, fuseModulation, fuseUpsample]) {
    applyRule(graph, rule);
  }
  writeConcatInPlace(graph);
}

/** Who reads and writes each storage. */
class Uses {
  readonly #readers = new Map<Storage, Set<GraphNode>>();
  readonly #writers = new Map<Storage, Set<GraphNode>>();
  readonly #outputs: Set<Storage>;

  constructor(graph: Graph) {
    this.#outputs = new Set([...graph.outputs.values()].map((tensor) => tensor.storage));
    for (const node of graph.nodes) this.insert(node);
  }

  insert(node: GraphNode): void {
    for (const input of node.inputs) {
      if (input instanceof Tensor) entry(this.#readers, input.storage).add(node);
    }
    entry(this.#writers, node.output.storage).add(node);
  }

  remove(node: GraphNode): void {
    for (const input of node.inputs) {
      if (input instanceof Tensor) this.#readers.get(input.storage)?.delete(node);
    }
    this.#writers.get(node.output.storage)?.delete(node);
  }

  /** The node that alone writes all of this operand, when `reader` alone reads it. */
  soleProducer(operand: Operand | undefined, reader: GraphNode): GraphNode | undefined {
    if (!(operand instanceof Tensor) || !operand.isWhole) return undefined;
    if (this.#outputs.has(operand.storage)) return undefined;
    const readers = this.#readers.get(operand.storage);
    const writers = this.#writers.get(operand.storage);
    if (readers?.size !== 1 || !readers.has(reader) || writers?.size !== 1) return undefined;
    const [producer] = writers;
    return producer.output.isWhole ? producer : undefined;
  }

  isRead(storage: Storage): boolean {
    return this.#outputs.has(storage) || (this.#readers.get(storage)?.size ?? 0) > 0;
  }
}

/** Tries a rule at each node; the rule returns the nodes that the rewritten one absorbs. */
type Rule = (node: GraphNode, uses: Uses) => { fused: GraphNode; absorbed: GraphNode[] } | null;

function applyRule(graph: Graph, rule: Rule): void {
  const uses = new Uses(graph);
  const dead = new Set<GraphNode>();
  graph.nodes = graph.nodes.map((node) => {
    const result = rule(node, uses);
    if (!result) return node;
    for (const gone of [node, ...result.absorbed]) {
      uses.remove(gone);
      dead.add(gone);
    }
    uses.insert(result.fused);
    return result.fused;
  }).filter((node) => !dead.has(node));
}

/** act(linear | conv2d | norm). */
function fuseActivation(node: GraphNode, uses: Uses): ReturnType<Rule> {
  if (node.op !== "unary" || !ACTIVATIONS.includes(node.attributes.kind)) return null;
  const producer = uses.soleProducer(node.inputs[0], node);
  if (producer?.op !== "linear" && producer?.op !== "conv2d" && producer?.op !== "norm") {
    return null;
  }
  if (producer.attributes.activation !== "identity" || hasEpilogue(producer)) return null;
  const attributes = { ...producer.attributes, activation: node.attributes.kind as Activation };
  const output = writtenAs(producer.output, node.output);
  return { fused: { ...producer, attributes, output } as GraphNode, absorbed: [producer] };
}

/** Whether something follows the activation already. */
function hasEpilogue(node: Node<"linear" | "conv2d" | "norm">): boolean {
  if (node.op === "linear") return node.inputs[3] !== null || node.inputs[4] !== null;
  return node.op === "conv2d" && node.inputs[3] !== null;
}

/** gate * linear, the gate [1 | m, n]. */
function fuseGate(node: GraphNode, uses: Uses): ReturnType<Rule> {
  if (node.op !== "binary" || node.attributes.kind !== "multiply") return null;
  return eitherOperand(node, uses, (producer, other) => {
    if (producer.op !== "linear" || hasEpilogue(producer)) return null;
    const gate = asGate(other);
    if (!gate) return null;
    const inputs = producer.inputs.with(3, gate);
    const output = writtenAs(producer.output, node.output);
    return { fused: { ...producer, inputs, output }, absorbed: [producer] };
  });
}

/** A broadcast view [m, n] with row stride 0 as [1, n]; a full matrix as it is. */
function asGate(other: Tensor): Tensor | null {
  const rank = other.shape.length;
  const columns = other.shape[rank - 1];
  const rowsRepeat = other.shape.every((size, axis) =>
    axis === rank - 1 || size === 1 || other.strides[axis] === 0
  );
  if (columns > 1 && other.strides[rank - 1] !== 1) return null;
  if (rowsRepeat) {
    return new Tensor(other.graph, other.storage, other.offset, [1, columns], [columns, 1]);
  }
  return isMatrix(other) ? other : null;
}

/** linear | conv2d + residual. */
function fuseResidual(node: GraphNode, uses: Uses): ReturnType<Rule> {
  if (node.op !== "binary" || node.attributes.kind !== "add") return null;
  return eitherOperand(node, uses, (producer, other) => {
    if (producer.op !== "linear" && producer.op !== "conv2d") return null;
    const operand = producer.op === "linear" ? 4 : 3;
    const repeats = other.shape.some((size, axis) => size > 1 && other.strides[axis] === 0);
    if (producer.inputs[operand] !== null || repeats || !isMatrix(other)) return null;
    const inputs = producer.inputs.with(operand, other);
    const output = writtenAs(producer.output, node.output);
    return { fused: { ...producer, inputs, output } as GraphNode, absorbed: [producer] };
  });
}

function eitherOperand(
  node: Node<"binary">,
  uses: Uses,
  rule: (producer: GraphNode, other: Tensor) => ReturnType<Rule>,
): ReturnType<Rule> {
  const [a, b] = node.inputs as [Tensor, Tensor];
  if (a.storage === b.storage) return null;
  // Models write x + f(x) and gate * f(x), so the second operand is the likelier producer.
  for (const [own, other] of [[b, a], [a, b]]) {
    const producer = uses.soleProducer(own, node);
    const result = producer && sameShape(own.shape, node.output.shape) && rule(producer, other);
    if (result) return result;
  }
  return null;
}

/** norm(x) (1 + scale) + shift. */
function fuseModulation(node: GraphNode, uses: Uses): ReturnType<Rule> {
  if (node.op !== "binary" || node.attributes.kind !== "add") return null;
  const product = uses.soleProducer(node.inputs[0] ?? undefined, node);
  if (product?.op !== "binary" || product.attributes.kind !== "multiply") return null;
  const producer = uses.soleProducer(product.inputs[0] ?? undefined, product);
  if (producer?.op !== "norm" || producer.attributes.activation !== "identity") return null;
  if (producer.inputs[3] || producer.inputs[4]) return null;
  const scale = onePlus(product.inputs[1] as Tensor, product, uses);
  const shift = asGate(node.inputs[1] as Tensor);
  if (!scale || !shift) return null;
  const inputs = [...producer.inputs.slice(0, 3), scale.input, shift];
  const output = writtenAs(producer.output, node.output);
  return { fused: { ...producer, inputs, output }, absorbed: [product, producer, scale.node] };
}

/** The scale of a broadcast 1 + scale. */
function onePlus(
  view: Tensor,
  reader: GraphNode,
  uses: Uses,
): { input: Tensor; node: GraphNode } | null {
  const row = asGate(view);
  const node = row && uses.soleProducer(row, reader);
  if (node?.op !== "unary" || node.attributes.kind !== "affine") return null;
  if (node.attributes.multiplier !== 1 || node.attributes.addend !== 1) return null;
  const input = asGate(node.inputs[0] as Tensor);
  return input && { input, node };
}

/** conv2d of a picture enlarged by a copy of a repeating view. */
function fuseUpsample(node: GraphNode, uses: Uses): ReturnType<Rule> {
  if (node.op !== "conv2d" || node.attributes.upsample !== 1) return null;
  const producer = uses.soleProducer(node.inputs[0] ?? undefined, node);
  if (producer?.op !== "copy") return null;
  const view = producer.inputs[0] as Tensor;
  const [height, two, width, alsoTwo, channels] = view.shape;
  if (view.shape.length !== 5 || two !== 2 || alsoTwo !== 2) return null;
  if (view.strides[1] !== 0 || view.strides[3] !== 0 || view.strides[2] !== channels) return null;
  if (view.strides[4] !== 1 || view.strides[0] !== width * channels) return null;
  const shape = [height, width, channels];
  const small = new Tensor(
    view.graph,
    view.storage,
    view.offset,
    shape,
    contiguousStrides(shape),
  );
  const attributes = { ...node.attributes, upsample: 2 as const };
  return {
    fused: { ...node, attributes, inputs: node.inputs.with(0, small) },
    absorbed: [producer],
  };
}

/** Lets a producer write its part of a concatenation itself instead of being copied there. */
function writeConcatInPlace(graph: Graph): void {
  const uses = new Uses(graph);
  const absorbed = new Set<GraphNode>();
  for (const node of graph.nodes) {
    if (node.op !== "copy" || !isMatrix(node.output)) continue;
    const producer = uses.soleProducer(node.inputs[0] ?? undefined, node);
    if (!producer || producer.op === "conv2d" || producer.op === "matmul") continue;
    if (!sameShape(producer.output.shape, node.output.shape)) continue;
    if (!sameShape((node.inputs[0] as Tensor).shape, node.output.shape)) continue;
    uses.remove(producer);
    uses.remove(node);
    producer.output = node.output;
    uses.insert(producer);
    absorbed.add(node);
  }
  graph.nodes = graph.nodes.filter((node) => !absorbed.has(node));
}

/** `target` seen with the producer's shape, so that the op keeps its own view of rows and columns. */
function writtenAs(own: Tensor, target: Tensor): Tensor {
  return sameShape(own.shape, target.shape) ? target : target.reshape(own.shape);
}

function entry<K, V>(map: Map<K, Set<V>>, key: K): Set<V> {
  const found = map.get(key);
  if (found) return found;
  const made = new Set<V>();
  map.set(key, made);
  return made;
}
