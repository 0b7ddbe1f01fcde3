/**
 * The vocabulary models are written in. Each function appends plain ops; the plan's passes fuse
 * them. Shapes: [rows, features] for tokens, [height, width, channels] for pictures.
 */

import { HalftoneError } from "../errors.ts";
import { elementCount, sameShape, type Shape } from "../tensor/shape.ts";
import type { Graph, Tensor, Weight } from "./graph.ts";
import type { BinaryKind, OpAttributes, ReduceKind, UnaryKind } from "./op_table.ts";

/** y = x weight^T + bias: x [m, k], weight [n, k], bias [n] -> [m, n]. */
export function linear(x: Tensor, weight: Weight, bias?: Weight): Tensor {
  const [rows, features] = x.shape;
  if (x.shape.length !== 2 || features !== weight.shape[1]) {
    throw mismatch(`Cannot apply linear "${weight.name}"`, x.shape, `[rows, ${weight.shape[1]}]`);
  }
  const attributes = { activation: "identity", activations: weight.activations } as const;
  return x.graph.add(
    "linear",
    attributes,
    [asMatrix(x), weight, bias ?? null, null, null],
    x.graph.allocate([rows, weight.shape[0]]),
  );
}

/** A weight as a dense float32 tensor. */
export function dequantized(graph: Graph, weight: Weight): Tensor {
  return graph.add("unpack", {}, [weight], graph.allocate(weight.shape));
}

/** A contiguous copy of a view (or the view itself when it is contiguous). */
export function contiguous(x: Tensor): Tensor {
  return x.isContiguous ? x : copy(x);
}

/** A fresh contiguous copy of a view. */
export function copy(x: Tensor): Tensor {
  return x.graph.add("copy", {}, [x], x.graph.allocate(x.shape));
}

function unary(x: Tensor, kind: UnaryKind, multiplier = 1, addend = 0): Tensor {
  const input = asMatrix(x);
  return x.graph.add("unary", { kind, multiplier, addend }, [input], x.graph.allocate(x.shape));
}

/** x sigmoid(x). */
export function silu(x: Tensor): Tensor {
  return unary(x, "silu");
}

/** GELU by its tanh approximation ("gelu_new", "gelu_pytorch_tanh"). */
export function geluTanh(x: Tensor): Tensor {
  return unary(x, "gelu_tanh");
}

/** GELU by the error function. */
export function gelu(x: Tensor): Tensor {
  return unary(x, "gelu_erf");
}

/** x sigmoid(1.702 x), CLIP's activation. */
export function quickGelu(x: Tensor): Tensor {
  return unary(x, "quick_gelu");
}

/** max(x, 0). */
export function relu(x: Tensor): Tensor {
  return unary(x, "relu");
}

/** e^x. */
export function exponential(x: Tensor): Tensor {
  return unary(x, "exp");
}

/** 1 / sqrt(x). */
export function rsqrt(x: Tensor): Tensor {
  return unary(x, "rsqrt");
}

/** x * multiplier + addend with numbers. */
export function affine(x: Tensor, multiplier: number, addend: number): Tensor {
  return unary(x, "affine", multiplier, addend);
}

function binary(kind: BinaryKind, a: Tensor, b: Tensor): Tensor {
  const shape = broadcastShape(a.shape, b.shape);
  const inputs = [a.broadcastTo(shape), b.broadcastTo(shape)];
  return a.graph.add("binary", { kind }, inputs, a.graph.allocate(shape));
}

/** a + b, broadcasting. */
export function add(a: Tensor, b: Tensor): Tensor {
  return binary("add", a, b);
}

/** a - b, broadcasting. */
export function subtract(a: Tensor, b: Tensor): Tensor {
  return binary("subtract", a, b);
}

/** a * b, broadcasting. */
export function multiply(a: Tensor, b: Tensor): Tensor {
  return binary("multiply", a, b);
}

/** a / b, broadcasting. */
export function divide(a: Tensor, b: Tensor): Tensor {
  return binary("divide", a, b);
}

/** A reduction of the last axis of [rows, columns] to [rows, 1]. */
export function reduce(x: Tensor, kind: ReduceKind): Tensor {
  return x.graph.add("reduce", { kind }, [asMatrix(x)], x.graph.allocate([x.shape[0], 1]));
}

/** scale * a b^T: a [batch, m, k], b [batch, n, k] -> [batch, m, n]. */
export function matmul(a: Tensor, b: Tensor, scale = 1): Tensor {
  const output = a.graph.allocate([a.shape[0], a.shape[1], b.shape[1]]);
  return a.graph.add("matmul", { scale }, [a, b], output);
}

/** Layer normalisation of the last axis, biased variance. */
export function layerNorm(
  x: Tensor,
  options: { epsilon: number; weight?: Weight; bias?: Weight },
): Tensor {
  return norm(x, "layer", options.epsilon, 1, options.weight, options.bias);
}

/** Root-mean-square normalisation of the last axis. */
export function rmsNorm(x: Tensor, options: { epsilon: number; weight?: Weight }): Tensor {
  return norm(x, "rms", options.epsilon, 1, options.weight);
}

/** Group normalisation of [height, width, channels]: statistics over pixels and channels of a group. */
export function groupNorm(
  x: Tensor,
  options: { groups: number; epsilon: number; weight: Weight; bias: Weight },
): Tensor {
  const channels = x.shape[x.shape.length - 1];
  const pixels = x.reshape([elementCount(x.shape) / channels, channels]);
  return norm(pixels, "group", options.epsilon, options.groups, options.weight, options.bias)
    .reshape(x.shape);
}

function norm(
  x: Tensor,
  kind: "layer" | "rms" | "group",
  epsilon: number,
  groups: number,
  weight?: Weight,
  bias?: Weight,
): Tensor {
  const attributes = { kind, epsilon, groups, activation: "identity" } as const;
  const inputs = [asMatrix(x), weight ?? null, bias ?? null, null, null];
  return x.graph.add("norm", attributes, inputs, x.graph.allocate(x.shape));
}

/** Adaptive layer norm's modulation, x (1 + scale) + shift; scale and shift are [1, columns]. */
export function modulate(x: Tensor, scale: Tensor, shift: Tensor): Tensor {
  return add(multiply(x, affine(scale, 1, 1)), shift);
}

/**
 * RMS norm over each head's values times `weight` [d], then rotary position embedding:
 * x [rows, heads * d], cos and sin [rows, d] (each value twice). Without cos and sin, no rotation.
 */
export function headNormRope(
  x: Tensor,
  options: { heads: number; weight: Weight; epsilon: number; cos?: Tensor; sin?: Tensor },
): Tensor {
  const { heads, weight, epsilon, cos, sin } = options;
  const inputs = [asMatrix(x), weight, cos ?? null, sin ?? null];
  return x.graph.add("headNormRope", { heads, epsilon }, inputs, x.graph.allocate(x.shape));
}

/**
 * Attention per head: q [queries, heads * d], k and v [keys, heads * d], bias [heads, queries, keys].
 * Causal: query i sees keys 0..i. `qkDtype` "int8" rounds q and k, see the op table.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: {
    heads: number;
    scale: number;
    causal?: boolean;
    bias?: Tensor;
    qkDtype?: OpAttributes["attention"]["qkDtype"];
  },
): Tensor {
  const attributes = {
    heads: options.heads,
    scale: options.scale,
    causal: options.causal ?? false,
    ...options.qkDtype && { qkDtype: options.qkDtype },
  };
  const bias = options.bias ? contiguous(options.bias) : null;
  const inputs = [asMatrix(q), asMatrix(k), asMatrix(v), bias];
  return q.graph.add("attention", attributes, inputs, q.graph.allocate(q.shape));
}

/** Rows of a table by ids: ids int32 [n], table [entries, columns] -> [n, columns]. */
export function embedding(ids: Tensor, table: Weight): Tensor {
  const output = ids.graph.allocate([ids.shape[0], table.shape[1]]);
  return ids.graph.add("gather", {}, [ids, table], output);
}

/** Geometry of a convolution; padding is one number or [top, left, bottom, right]. */
export interface ConvolutionOptions {
  kernel: number;
  stride?: number;
  padding?: number | readonly [number, number, number, number];
}

/** Convolution of x [height, width, channels] by a weight brought to [out, kernel, kernel, channels]. */
export function conv2d(
  x: Tensor,
  weight: Weight,
  bias: Weight | undefined,
  options: ConvolutionOptions,
): Tensor {
  const { kernel, stride = 1, padding = 0 } = options;
  const pads: readonly [number, number, number, number] = typeof padding === "number"
    ? [padding, padding, padding, padding]
    : padding;
  const [height, width, channels] = x.shape;
  if (channels !== weight.shape[3]) {
    throw mismatch(`Cannot apply convolution "${weight.name}"`, x.shape, weight.shape);
  }
  const outHeight = Math.floor((height + pads[0] + pads[2] - kernel) / stride) + 1;
  const outWidth = Math.floor((width + pads[1] + pads[3] - kernel) / stride) + 1;
  const attributes = {
    kernel,
    stride,
    padding: pads,
    upsample: 1,
    activation: "identity",
  } as const;
  return x.graph.add(
    "conv2d",
    attributes,
    [contiguous(x), weight, bias ?? null, null],
    x.graph.allocate([outHeight, outWidth, weight.shape[0]]),
  );
}

/** Each pixel of [height, width, channels] four times. */
export function upsampleNearest2x(x: Tensor): Tensor {
  const [height, width, channels] = x.shape;
  const repeated = x.reshape([height, 1, width, 1, channels])
    .broadcastTo([height, 2, width, 2, channels]);
  return copy(repeated).reshape([2 * height, 2 * width, channels]);
}

/** Tensors side by side along an axis. */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const first = tensors[0];
  const length = tensors.reduce((sum, tensor) => sum + tensor.shape[axis], 0);
  const output = first.graph.allocate(first.shape.with(axis, length));
  let start = 0;
  for (const tensor of tensors) {
    const end = start + tensor.shape[axis];
    tensor.graph.add("copy", {}, [tensor], output.slice(axis, start, end));
    start = end;
  }
  return output;
}

/** The view itself where its outer axes collapse to one row stride, else a contiguous copy. */
export function asMatrix(x: Tensor): Tensor {
  return isMatrix(x) ? x : copy(x);
}

/** Whether the innermost axis is dense and all outer axes collapse to one row stride. */
export function isMatrix(x: Tensor): boolean {
  const inner = x.shape.length - 1;
  if (inner < 0) return true;
  if (x.shape[inner] !== 1 && x.strides[inner] !== 1) return false;
  const outer = x.shape.map((size, axis) => ({ size, stride: x.strides[axis] }))
    .slice(0, inner).filter((axis) => axis.size !== 1);
  return outer.every((axis, i) =>
    i + 1 === outer.length || axis.stride === outer[i + 1].stride * outer[i + 1].size
  );
}

function broadcastShape(a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const left = a[axis - rank + a.length] ?? 1;
    const right = b[axis - rank + b.length] ?? 1;
    if (left !== right && left !== 1 && right !== 1) throw mismatch("Cannot broadcast", a, b);
    return left === 1 ? right : left;
  });
}

function mismatch(message: string, found: Shape, expected: Shape | string): HalftoneError {
  const text = typeof expected === "string" ? expected : `[${expected}]`;
  return new HalftoneError("plan_invalid", message, { found: `[${found}]`, expected: text });
}
