/** Layers that round what norms and other layers make, together or apart. */

import type { CudaBackendOptions } from "../../src/backends/cuda/mod.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import { affine, geluTanh, layerNorm, linear, modulate } from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { BY_ROW, ROW, STATIC, TENSOR } from "./float8_cases.ts";
import { INT8_FORMATS, int8Modes } from "./int8_cases.ts";
import { type Launched, launched } from "./launched.ts";

/** Rows, enough of them for products of codes, and columns. */
export const [M, K] = [66, 64];
const INT8 = INT8_FORMATS[0]!;
/** Layers by name: rows of their weights, and whether something is added to them. */
const LAYERS = { q: 32, k: 32, v: 48, up: 96, down: 64 } as const;

/** A graph over layers of one mode; `own` keeps what a layer reads from being rounded by anybody else. */
export type Build = (layers: Layers, own: (x: Tensor) => Tensor) => Record<string, Tensor>;

/** What graphs are made of. */
export class Layers {
  readonly graph: Graph;
  readonly x: Tensor;

  constructor(weights: TestWeights) {
    this.graph = new Graph("layers", weights);
    this.x = this.graph.input("x", [M, K]);
  }

  layer(name: keyof typeof LAYERS, x: Tensor): Tensor {
    const weight = this.graph.weight(name, [LAYERS[name], x.shape[1]!]);
    return linear(x, weight, this.graph.weight(`${name}.bias`, [LAYERS[name]]));
  }
}

/** A modulated norm, three layers that read it, and two with a GELU between. */
export const block: Build = (layers, own) => {
  const row = (from: number) => layers.x.slice(0, from, from + 1);
  const normalized = modulate(layerNorm(layers.x, { epsilon: 1e-6 }), row(0), row(1));
  const [q, k, v, up] = (["q", "k", "v", "up"] as const).map((name) =>
    layers.layer(name, own(normalized))
  );
  const down = layers.layer("down", own(geluTanh(up!)));
  return { q: q!, k: k!, v: v!, down };
};

/** Modes, and the kernels that round for the block: in its norm, in a layer, of their own. */
export const CODE_MODES: readonly {
  readonly name: string;
  readonly mode: ActivationMode;
  readonly kernels: readonly [inNorm: number, inLayer: number, own: number];
}[] = modes();

function modes(): typeof CODE_MODES {
  const [reciprocal, asymmetric, tensor, , fixed, zeroed] = int8Modes();
  const [alone, together] = [[0, 0, 2], [1, 1, 0]] as const;
  return [
    { name: "int8 by row", mode: reciprocal!, kernels: together },
    { name: "int8 by row, asymmetric", mode: asymmetric!, kernels: together },
    { name: "int8 with a known scale", mode: fixed!, kernels: together },
    { name: "int8 with a known scale and zero", mode: zeroed!, kernels: together },
    { name: "int8 with a scale of all rows", mode: tensor!, kernels: alone },
    { name: "LLM.int8()", mode: { kind: "llm_int8", threshold: 2.5 }, kernels: alone },
    { name: "float8 by row", mode: ROW, kernels: together },
    { name: "float8 with a known scale", mode: STATIC, kernels: together },
    { name: "float8 with a scale of all rows", mode: TENSOR, kernels: alone },
  ];
}

/** What is not as usual. */
export interface CodesRun {
  /** Whether nobody rounds for others. */
  readonly apart?: boolean;
  readonly x?: HostTensor;
  /** Layers that round otherwise than the mode says. */
  readonly others?: Readonly<Record<string, ActivationMode>>;
  readonly beforeLoading?: () => void;
}

/** Runs a graph over layers of a mode in bfloat16, unless the backend is to be another. */
export function runCodes(
  options: CudaBackendOptions,
  mode: ActivationMode,
  build: Build,
  { apart = false, x = someRows(), others = {}, beforeLoading }: CodesRun = {},
): Promise<Launched> {
  const weights = weightsFor(mode, others);
  const layers = new Layers(weights);
  const outputs = build(layers, (x) => apart ? affine(x, 1, -0) : x);
  for (const [name, tensor] of Object.entries(outputs)) layers.graph.output(name, tensor);
  const backend = { matmulPrecision: "bfloat16", ...options } as const;
  return launched(layers.graph, weights, { x }, backend, beforeLoading);
}

/** Rows with outliers here and there. */
export function someRows(): HostTensor {
  const random = new Random(9100);
  const values = Float32Array.from({ length: M * K }, () => random.normal());
  for (let i = 3; i < values.length; i += 211) values[i] = 9 - i % 19;
  return HostTensor.fromFloat32(values, [M, K]);
}

/** Weights whose layers round in several ways. */
export class MixedWeights extends TestWeights {
  readonly #others: Readonly<Record<string, ActivationMode>>;

  constructor(mode: ActivationMode, others: Readonly<Record<string, ActivationMode>>) {
    super(mode);
    this.#others = others;
  }

  override lookup(name: string) {
    const info = super.lookup(name);
    return info && { ...info, activations: this.#others[name] ?? info.activations };
  }
}

function weightsFor(
  mode: ActivationMode,
  others: Readonly<Record<string, ActivationMode>>,
): TestWeights {
  const format = mode.kind === "quantized" && mode.dtype !== "int8" ? BY_ROW : INT8;
  const random = new Random(9200);
  const weights = new MixedWeights(mode, others);
  for (const [name, rows] of Object.entries(LAYERS)) {
    weights.add(name, format.make(random, rows, name === "down" ? LAYERS.up : K));
    weights.add(`${name}.bias`, denseWeight(random, "float32", [rows]));
  }
  return weights;
}
