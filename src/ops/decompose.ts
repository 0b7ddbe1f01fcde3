/**
 * What the optional ops mean in terms of the required ones. A backend that lacks an op runs its
 * decomposition; the conformance suite checks that both agree.
 */

import { HalftoneError } from "../errors.ts";
import { elementCount } from "../tensor/shape.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import {
  add,
  affine,
  copy,
  dequantized,
  divide,
  exponential,
  matmul,
  multiply,
  reduce,
  rsqrt,
  subtract,
} from "./builders.ts";
import { type Graph, type GraphNode, type Operand, type Tensor, Weight } from "./graph.ts";
import type { Activation, OpName } from "./op_table.ts";

type Node<Op extends OpName> = Extract<GraphNode, { op: Op }>;

/** Replaces every op that `supports` denies by required ops, in place. */
export function decompose(graph: Graph, supports: (op: OpName) => boolean): void {
  const captured = graph.nodes;
  graph.nodes = [];
  for (const node of captured) {
    if (supports(node.op)) graph.nodes.push(node);
    else graph.add("copy", {}, [expand(graph, node)], node.output);
  }
}

function expand(graph: Graph, node: GraphNode): Tensor {
  switch (node.op) {
    case "linear":
      return expandLinear(graph, node);
    case "norm":
      return expandNorm(graph, node);
    case "attention":
      return expandAttention(graph, node);
    case "headNormRope":
      return expandHeadNormRope(graph, node);
    default:
      throw new HalftoneError("unsupported", `Cannot run the required op "${node.op}"`, {
        remedy: "Use another backend",
      });
  }
}

function expandLinear(graph: Graph, node: Node<"linear">): Tensor {
  const { activation, activations } = node.attributes;
  if (activations.kind !== "float") {
    throw new HalftoneError("unsupported", `Cannot decompose ${activations.kind} activations`, {
      remedy: "Use a backend with the linear op",
    });
  }
  const [x, weight, bias, gate, residual] = node.inputs;
  const dense = dequantized(graph, weight as Weight);
  let y = matmul(batchOfOne(matrix(x)), batchOfOne(dense)).reshape(matrix(node.output).shape);
  if (bias) y = add(y, asTensor(graph, bias));
  y = activate(y, activation);
  if (gate) y = multiply(y, matrix(gate));
  if (residual) y = add(y, matrix(residual));
  return y.reshape(node.output.shape);
}

function expandNorm(graph: Graph, node: Node<"norm">): Tensor {
  const { kind, epsilon, groups, activation } = node.attributes;
  const [input, weight, bias, scale, shift] = node.inputs;
  const x = matrix(input);
  let y = kind === "group" ? groupNormalised(x, groups, epsilon) : normalised(x, kind, epsilon);
  if (weight) y = multiply(y, asTensor(graph, weight));
  if (bias) y = add(y, asTensor(graph, bias));
  if (scale) y = multiply(y, affine(matrix(scale), 1, 1));
  if (shift) y = add(y, matrix(shift));
  return activate(y, activation).reshape(node.output.shape);
}

/** (x - mean) / sqrt(variance + epsilon) per row; "rms" leaves the mean in. */
function normalised(x: Tensor, kind: "layer" | "rms", epsilon: number): Tensor {
  const centred = kind === "layer" ? subtract(x, reduce(x, "mean")) : x;
  const variance = reduce(multiply(centred, centred), "mean");
  return multiply(centred, rsqrt(affine(variance, 1, epsilon)));
}

function groupNormalised(x: Tensor, groups: number, epsilon: number): Tensor {
  const [pixels, channels] = x.shape;
  const size = channels / groups;
  const grouped = copy(x.reshape([pixels, groups, size]).permute([1, 0, 2]));
  const flat = normalised(grouped.reshape([groups, pixels * size]), "layer", epsilon);
  return copy(flat.reshape([groups, pixels, size]).permute([1, 0, 2])).reshape([pixels, channels]);
}

function expandAttention(graph: Graph, node: Node<"attention">): Tensor {
  const { heads, scale, causal, qkDtype } = node.attributes;
  if (qkDtype !== undefined) {
    throw new HalftoneError("unsupported", `Cannot decompose attention in ${qkDtype}`, {
      remedy: "Use a backend with the attention op, or attention in float",
    });
  }
  const [q, k, v] = node.inputs.slice(0, 3).map((operand) => perHead(matrix(operand), heads));
  const [, queries, size] = q.shape;
  const keys = k.shape[1];
  let scores = matmul(q, k, scale); // [heads, queries, keys]
  if (node.inputs[3]) scores = add(scores, node.inputs[3] as Tensor);
  if (causal) scores = add(scores, graph.constant(causalMask(queries, keys)));
  const weights = softmax(scores.reshape([heads * queries, keys]));
  const mixed = matmul(weights.reshape([heads, queries, keys]), v.permute([0, 2, 1]));
  return copy(mixed.permute([1, 0, 2])).reshape([queries, heads * size]);
}

/** [rows, heads * d] -> [heads, rows, d], a view. */
function perHead(x: Tensor, heads: number): Tensor {
  const [rows, columns] = x.shape;
  return x.reshape([rows, heads, columns / heads]).permute([1, 0, 2]);
}

function softmax(x: Tensor): Tensor {
  const powers = exponential(subtract(x, reduce(x, "max")));
  return divide(powers, reduce(powers, "sum"));
}

/** 0 where query i sees key j <= i, else a number that exp sends to 0. */
function causalMask(queries: number, keys: number): HostTensor {
  const values = new Float32Array(queries * keys);
  for (let i = 0; i < queries; i++) values.fill(-1e30, i * keys + i + 1, (i + 1) * keys);
  return HostTensor.fromFloat32(values, [queries, keys]);
}

function expandHeadNormRope(graph: Graph, node: Node<"headNormRope">): Tensor {
  const { heads, epsilon } = node.attributes;
  const x = matrix(node.inputs[0]);
  const [rows, columns] = x.shape;
  const size = columns / heads;
  const perHeadRows = (x.isContiguous ? x : copy(x)).reshape([rows * heads, size]);
  const norm = multiply(
    normalised(perHeadRows, "rms", epsilon),
    asTensor(graph, node.inputs[1]),
  ).reshape([rows, heads, size]);
  const [cos, sin] = [node.inputs[2], node.inputs[3]];
  if (!cos || !sin) return norm.reshape(node.output.shape);
  const rotated = rotatePairs(norm);
  const angle = (operand: Operand) => matrix(operand).reshape([rows, 1, size]);
  return add(multiply(norm, angle(cos)), multiply(rotated, angle(sin)))
    .reshape(node.output.shape);
}

/** Adjacent pairs (a, b) -> (-b, a) along the last axis of [rows, heads, d]. */
function rotatePairs(x: Tensor): Tensor {
  const [rows, heads, size] = x.shape;
  const pairs = x.reshape([rows * heads, size / 2, 2]);
  const result = x.graph.allocate(pairs.shape);
  const minus = affine(copy(pairs.slice(2, 1, 2)), -1, 0);
  x.graph.add("copy", {}, [minus], result.slice(2, 0, 1));
  x.graph.add("copy", {}, [pairs.slice(2, 0, 1)], result.slice(2, 1, 2));
  return result.reshape(x.shape);
}

function activate(x: Tensor, kind: Activation): Tensor {
  if (kind === "identity") return x;
  const attributes = { kind, multiplier: 1, addend: 0 };
  return x.graph.add("unary", attributes, [x], x.graph.allocate(x.shape));
}

/** An operand with its outer axes merged. */
function matrix(operand: Operand): Tensor {
  const x = operand as Tensor;
  const columns = x.shape[x.shape.length - 1];
  return x.reshape([elementCount(x.shape) / columns, columns]);
}

function batchOfOne(x: Tensor): Tensor {
  return x.reshape([1, ...x.shape]);
}

function asTensor(graph: Graph, operand: Operand): Tensor {
  return operand instanceof Weight ? dequantized(graph, operand) : operand as Tensor;
}
