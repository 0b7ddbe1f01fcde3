/** Layers that several models share. */

import { HalftoneError } from "../errors.ts";
import type { Graph, Tensor, Weight } from "../ops/graph.ts";
import { gelu, geluTanh, layerNorm, linear, quickGelu, relu, silu } from "../ops/builders.ts";

/** nn.Linear with bias: x [rows, features] -> [rows, outputs], weights `name.weight`, `name.bias`. */
export function linearLayer(graph: Graph, x: Tensor, name: string, outputs: number): Tensor {
  const weight = linearWeight(graph, name, x.shape[1], outputs);
  return linear(x, weight, graph.weight(`${name}.bias`, [outputs]));
}

/** nn.Linear without bias. */
export function projection(graph: Graph, x: Tensor, name: string, outputs: number): Tensor {
  return linear(x, linearWeight(graph, name, x.shape[1], outputs));
}

function linearWeight(graph: Graph, name: string, inputs: number, outputs: number): Weight {
  return graph.weight(`${name}.weight`, [outputs, inputs]);
}

/** nn.LayerNorm with weight and bias over x [rows, features]. */
export function layerNormLayer(graph: Graph, x: Tensor, name: string, epsilon: number): Tensor {
  const features = x.shape[x.shape.length - 1];
  return layerNorm(x, {
    epsilon,
    weight: graph.weight(`${name}.weight`, [features]),
    bias: graph.weight(`${name}.bias`, [features]),
  });
}

const ACTIVATIONS: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  quick_gelu: quickGelu,
  relu,
  silu,
  swish: silu,
};

/** The activation a config names, as Transformers' ACT2FN does; throws `unsupported` for others. */
export function activationByName(name: string, field: string): (x: Tensor) => Tensor {
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (activation) return activation;
  throw new HalftoneError("unsupported", "Cannot use this activation function", {
    field,
    found: name,
    expected: Object.keys(ACTIVATIONS).join(", "),
  });
}
