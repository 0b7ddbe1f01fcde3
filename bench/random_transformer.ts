/** A Flux transformer of any size with random weights, in memory or in a folder. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StoredWeight, WeightSource } from "../src/backends/backend.ts";
import { checkpointFromSources } from "../src/io/checkpoint.ts";
import type { WriteCheckpointOptions } from "../src/io/checkpoint_writer.ts";
import type { Config } from "../src/io/config.ts";
import { writeGguf } from "../src/io/gguf_writer.ts";
import { type NamedTensor, writeCheckpoint } from "../src/io/write_checkpoint.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { Graph, type Weight, type WeightInfo } from "../src/ops/graph.ts";
import type { ActivationMode } from "../src/ops/activation_mode.ts";
import type { Component } from "../src/pipelines/component.ts";
import type { PlanWeight, WeightArrangement } from "../src/plan/plan.ts";
import { createQuantizer } from "../src/quantization/auto.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import { ggufTypeOfLayout } from "../src/quantization/gguf_blocks.ts";
import { packedBytes } from "../src/quantization/codes.ts";
import type {
  CodeValue,
  QuantizedTensor,
  ScaleData,
  ScaleLayout,
} from "../src/quantization/quantized_tensor.ts";
import type { Quantizer } from "../src/quantization/quantizer.ts";
import { quantizedInfo } from "../src/quantization/weights.ts";
import type { DType } from "../src/tensor/dtype.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../src/tensor/shape.ts";
import { randomBytes, randomCodes } from "./weight_cases.ts";

/** FLUX.1 [schnell]'s config.json but for the number of blocks and of heads. */
export function fluxConfig(doubleBlocks: number, singleBlocks: number, heads = 24): Config {
  return {
    _class_name: "FluxTransformer2DModel",
    attention_head_dim: 128,
    axes_dims_rope: [16, 56, 56],
    guidance_embeds: false,
    in_channels: 64,
    joint_attention_dim: 4096,
    num_attention_heads: heads,
    num_layers: doubleBlocks,
    num_single_layers: singleBlocks,
    pooled_projection_dim: 768,
  };
}

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

/** The weights that a transformer of this config reads. */
export function transformerShapes(config: Config): ReadonlyMap<string, Shape> {
  const model = new FluxTransformer2DModel(config);
  const recorder = new ShapeRecorder();
  model.captureModulation(recorder, { steps: 1 });
  model.captureDenoise(recorder, { height: 1, width: 1, textTokens: 1 });
  return recorder.shapes;
}

/** How many weights it has. */
export function parameterCount(config: Config): number {
  return [...transformerShapes(config).values()]
    .reduce((sum, shape) => sum + elementCount(shape), 0);
}

/** A transformer whose weights, random and in `METHOD:FORMAT` where one is given, lie in no file. */
export async function randomTransformer(
  config: Config,
  quantize?: string,
  activations?: ActivationMode,
): Promise<Component<FluxTransformer2DModel>> {
  const infos = weightInfos(config, quantizerOf(config, quantize));
  const describe = (info: WeightInfo | undefined) =>
    info && activations && info.format.kind === "quantized" ? { ...info, activations } : info;
  return {
    name: "transformer",
    path: "random",
    file: null,
    model: new FluxTransformer2DModel(config),
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

function quantizerOf(config: Config, quantize: string | undefined): Quantizer | null {
  if (quantize === undefined) return null;
  const tensors = transformerShapes(config).keys();
  const target = { library: "diffusers", keepInFloat32: [], tensors } as const;
  return createQuantizer(parseQuantizeFlag(quantize).config, target);
}

function weightInfos(config: Config, quantizer: Quantizer | null): Map<string, WeightInfo> {
  const model = new FluxTransformer2DModel(config);
  const isLinear = (name: string) => model.isLinearWeight(name);
  return new Map([...transformerShapes(config)].map(([name, shape]) => {
    const header = { dtype: "bfloat16", shape } as const;
    return [name, quantizedInfo(name, header, quantizer, isLinear) ?? denseInfo(shape)!];
  }));
}

/** Writes config.json and the weights into a folder, as the method's library would. */
export async function writeRandomTransformer(
  folder: string,
  config: Config,
  quantize?: string,
  options?: WriteCheckpointOptions,
): Promise<void> {
  const quantizer = quantizerOf(config, quantize);
  const infos = weightInfos(config, quantizer);
  if (quantizer?.config.quantMethod === "gguf") {
    return await writeGgufFolder(folder, config, infos, quantizer);
  }
  const written = quantizer
    ? { ...config, quantization_config: quantizer.config.toDict() }
    : config;
  await writeCheckpoint(folder, written, randomTensors(infos, quantizer), options);
}

async function writeGgufFolder(
  folder: string,
  config: Config,
  infos: ReadonlyMap<string, WeightInfo>,
  quantizer: Quantizer,
): Promise<void> {
  const described = [...infos].map(([name, { shape, format }]) => ({
    name,
    shape,
    type: format.kind === "dense" ? "BF16" as const : ggufTypeOfLayout(format.layout)!,
  }));
  mkdirSync(folder, { recursive: true });
  const metadata = [["general.architecture", { type: "string", value: "flux" }]] as const;
  await writeGguf(join(folder, "model.gguf"), described, metadata, async function* ({ name }) {
    for (const { tensor } of randomTensors([[name, infos.get(name)!]], quantizer)) {
      yield await Promise.resolve(tensor.bytes);
    }
  });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
}

function* randomTensors(
  infos: Iterable<readonly [name: string, info: WeightInfo]>,
  quantizer: Quantizer | null,
): Generator<NamedTensor> {
  for (const [name, info] of infos) {
    const weight = randomWeight(name, info);
    if (weight.kind === "dense") yield { name, tensor: weight.tensor };
    else yield* quantizer!.write(name, { tensor: weight.tensor, dtype: "bfloat16" });
  }
}

function randomWeight(name: string, { shape, format }: WeightInfo): StoredWeight {
  if (format.kind === "dense") return { kind: "dense", tensor: randomDense(name, shape) };
  return { kind: "quantized", tensor: randomQuantized(shape, format.layout) };
}

/** Evenly spread weights of variance 1 / inputs reach this far from 0. */
function reachOf(shape: Shape): number {
  return Math.sqrt(3 / shape.at(-1)!);
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
  const values = Uint16Array.from(randomBytes(elementCount(shape)), (byte) => levels[byte]!);
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
  const floats = (count: number, value: number, dtype: DType) =>
    HostTensor.fromFloat32(new Float32Array(count).fill(value)).cast(dtype);
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
