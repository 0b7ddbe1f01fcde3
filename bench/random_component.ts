/** A model of any size whose weights, random and in a format, lie in no file. */

import type { StoredWeight, WeightSource } from "../src/backends/backend.ts";
import { checkpointFromSources } from "../src/io/checkpoint.ts";
import type { Config } from "../src/io/config.ts";
import { Graph, type Weight, type WeightInfo } from "../src/ops/graph.ts";
import type { ActivationMode } from "../src/ops/activation_mode.ts";
import type { Component, ComponentModel } from "../src/pipelines/component.ts";
import type { PlanWeight, WeightArrangement } from "../src/plan/plan.ts";
import { createQuantizer } from "../src/quantization/auto.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import { packedBytes } from "../src/quantization/codes.ts";
import type {
  CodeValue,
  QuantizedTensor,
  ScaleData,
  ScaleLayout,
} from "../src/quantization/quantized_tensor.ts";
import type { Quantizer } from "../src/quantization/quantizer.ts";
import { libraryOf, quantizedInfo } from "../src/quantization/weights.ts";
import type { DType } from "../src/tensor/dtype.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../src/tensor/shape.ts";
import { randomBytes, randomLevels, uniformBytes } from "./random_values.ts";
import { randomCodes } from "./weight_cases.ts";

/** Has every weight a model asks for, as dense bfloat16, and learns its shape. */
export class ShapeRecorder extends Graph {
  readonly shapes: Map<string, Shape>;

  constructor() {
    const shapes = new Map<string, Shape>();
    super("shapes", { lookup: (name) => denseInfo(shapes.get(name)) });
    this.shapes = shapes;
  }

  override weight(name: string, shape: Shape, arrangement?: WeightArrangement): Weight {
    this.shapes.set(name, shape);
    return super.weight(name, shape, arrangement);
  }
}

/** A dense bfloat16 weight of this shape. */
export function denseInfo(shape: Shape | undefined): WeightInfo | undefined {
  const format = { kind: "dense", dtype: "bfloat16" } as const;
  return shape && { shape, format, activations: { kind: "float" } };
}

/** What a component is made of: its name, model and config, the weights it reads, and their format. */
export interface RandomComponent<Model extends ComponentModel> {
  readonly name: string;
  readonly model: Model;
  readonly config: Config;
  readonly shapes: ReadonlyMap<string, Shape>;
  /** METHOD:FORMAT; absent for dense bfloat16. */
  readonly quantize?: string | undefined;
  /** In place of what the format says. */
  readonly activations?: ActivationMode | undefined;
}

/** The component, as a pipeline takes it. */
export async function randomComponent<Model extends ComponentModel>(
  { name, model, config, shapes, quantize, activations }: RandomComponent<Model>,
): Promise<Component<Model>> {
  const infos = weightInfos(model, shapes, quantizerOf(model, config, shapes, quantize));
  const describe = (info: WeightInfo | undefined) =>
    info && activations && info.format.kind === "quantized" ? { ...info, activations } : info;
  return {
    name,
    path: "random",
    file: null,
    model,
    config,
    checkpoint: await checkpointFromSources("random", []),
    weights: {
      catalog: { lookup: (name) => describe(infos.get(name)) },
      source: remembering((weight) => planned(weight, infos.get(weight.name)!)),
      quantizationConfig: null,
      quantizer: null,
      preQuantized: false,
      isDequantized: false,
      isChanged: false,
      async *dense() {},
      memory: () => ({ stored: 0, resident: 0, scales: 0 }),
    },
    changeWeights: () => Promise.resolve(),
    showWeights: () => {},
    close: () => Promise.resolve(),
  };
}

/** The weights that captures of a model read. */
export function shapesOf(...captures: ((graph: Graph) => void)[]): ReadonlyMap<string, Shape> {
  const recorder = new ShapeRecorder();
  for (const capture of captures) capture(recorder);
  return recorder.shapes;
}

/** Weights alike in shape, format and kind are the same ones: at full size it takes minutes to make all. */
function remembering(make: (weight: PlanWeight) => StoredWeight): WeightSource {
  const made = new Map<string, StoredWeight>();
  return {
    read: (weight) => {
      const { shape, format, name } = weight;
      const key = JSON.stringify([shape, format, isNorm(name)]);
      const known = made.get(key) ?? make(weight);
      made.set(key, known);
      return Promise.resolve(known);
    },
  };
}

/** A random weight in the type that the plan wants: vectors are float32 in every plan. */
function planned({ name, format }: PlanWeight, info: WeightInfo): StoredWeight {
  const weight = randomWeight(name, info);
  if (weight.kind === "quantized" || format.kind === "quantized") return weight;
  return { kind: "dense", tensor: weight.tensor.cast(format.dtype) };
}

/** The quantizer of a METHOD:FORMAT for a model's weights; null for none. */
export function quantizerOf(
  { keepInFloat32 = [] }: ComponentModel,
  config: Config,
  shapes: ReadonlyMap<string, Shape>,
  quantize: string | undefined,
): Quantizer | null {
  if (quantize === undefined) return null;
  const target = { library: libraryOf(config), keepInFloat32, tensors: shapes.keys() };
  return createQuantizer(parseQuantizeFlag(quantize).config, target);
}

/** How weights are stored. */
export function weightInfos(
  model: ComponentModel,
  shapes: ReadonlyMap<string, Shape>,
  quantizer: Quantizer | null,
): Map<string, WeightInfo> {
  const isLinear = (name: string) => model.isLinearWeight(name);
  return new Map([...shapes].map(([name, shape]) => {
    const header = { dtype: "bfloat16", shape } as const;
    return [name, quantizedInfo(name, header, quantizer, isLinear) ?? denseInfo(shape)!];
  }));
}

/** A random weight, dense in bfloat16. */
export function randomWeight(name: string, { shape, format }: WeightInfo): StoredWeight {
  if (format.kind === "dense") return { kind: "dense", tensor: randomDense(name, shape) };
  return { kind: "quantized", tensor: randomQuantized(shape, format.layout) };
}

/** Evenly spread weights of variance 1 / inputs reach this far from 0. */
function reachOf(shape: Shape): number {
  const inputs = shape.length > 1 ? elementCount(shape) / shape[0]! : shape[0]!;
  return Math.sqrt(3 / inputs);
}

function isNorm(name: string): boolean {
  return /\.norm_(added_)?[qk]\.weight$/.test(name);
}

/** 256 bfloat16 values, evenly spread: around 1 for norms, else around 0. */
function randomDense(name: string, shape: Shape): HostTensor {
  const [center, reach] = isNorm(name) ? [1, 0.1] : [0, reachOf(shape)];
  const floats = Float32Array.from(
    { length: 256 },
    (_, level) => center + reach * (level - 127.5) / 127.5,
  );
  const levels = Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
  const values = randomLevels(elementCount(shape), levels);
  return new HostTensor("bfloat16", shape, new Uint8Array(values.buffer));
}

/** Random codes, and scales (and offsets) that give them about the reach of dense weights. */
function randomQuantized(shape: Shape, layout: QuantizedTensor["layout"]): QuantizedTensor {
  const { value, scale, offset, bits } = layout;
  const reach = reachOf(shape);
  const { codes, groups } = randomCodes(shape, layout);
  const [rows, columns] = shape as [number, number];
  return {
    shape: [rows, columns],
    layout,
    codes,
    scale: evenScale(scale, groups, (offset ? 2 : 1) * reach / largestValue(value, bits)),
    offset: offset && evenScale(offset, groups, -reach),
  };
}

/** The largest magnitude of a code's value. */
function largestValue(value: CodeValue, bits: number): number {
  if (value.kind === "integer") return Math.max(value.zeroPoint, 2 ** bits - 1 - value.zeroPoint);
  return value.table.filter(Number.isFinite).reduce(
    (most, entry) => Math.max(most, Math.abs(entry)),
    0,
  );
}

/** Scales that are all as given, or, where they are random codes themselves, at most that. */
function evenScale(layout: ScaleLayout, groups: number, each: number): ScaleData {
  const floats = (count: number, value: number, dtype: DType) => {
    const { bytes } = HostTensor.fromFloat32(Float32Array.of(value)).cast(dtype);
    return new HostTensor(dtype, [count], uniformBytes(bytes, count));
  };
  if (layout.kind === "float") {
    const values = floats(groups, each / (layout.multiplier ?? 1), layout.dtype);
    return { kind: "float", values };
  }
  const { bits, value, superGroupSize, superDtype } = layout;
  return {
    kind: "coded",
    codes: randomBytes(packedBytes(groups, bits)),
    supers: floats(
      Math.ceil(groups / superGroupSize),
      each / largestValue(value, bits),
      superDtype,
    ),
    constant: 0,
  };
}
