/** A Flux transformer of any size with random weights, in memory or in a folder. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { WriteCheckpointOptions } from "../src/io/checkpoint_writer.ts";
import type { Config } from "../src/io/config.ts";
import { writeGguf } from "../src/io/gguf_writer.ts";
import { type NamedTensor, writeCheckpoint } from "../src/io/write_checkpoint.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import type { WeightInfo } from "../src/ops/graph.ts";
import type { ActivationMode } from "../src/ops/activation_mode.ts";
import type { Component } from "../src/pipelines/component.ts";
import { ggufTypeOfLayout } from "../src/quantization/gguf_blocks.ts";
import type { Quantizer } from "../src/quantization/quantizer.ts";
import { elementCount, type Shape } from "../src/tensor/shape.ts";
import {
  quantizerOf,
  randomComponent,
  randomWeight,
  shapesOf,
  weightInfos,
} from "./random_component.ts";

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

/** The weights that a transformer of this config reads. */
export function transformerShapes(config: Config): ReadonlyMap<string, Shape> {
  const model = new FluxTransformer2DModel(config);
  return shapesOf(
    (graph) => model.captureModulation(graph, { steps: 1 }),
    (graph) => model.captureDenoise(graph, { height: 1, width: 1, textTokens: 1 }),
  );
}

/** How many weights it has. */
export function parameterCount(config: Config): number {
  return [...transformerShapes(config).values()]
    .reduce((sum, shape) => sum + elementCount(shape), 0);
}

/** A transformer whose weights, random and in `METHOD:FORMAT` where one is given, lie in no file. */
export function randomTransformer(
  config: Config,
  quantize?: string,
  activations?: ActivationMode,
): Promise<Component<FluxTransformer2DModel>> {
  const model = new FluxTransformer2DModel(config);
  const shapes = transformerShapes(config);
  return randomComponent({ name: "transformer", model, config, shapes, quantize, activations });
}

/** Writes config.json and the weights into a folder, as the method's library would. */
export async function writeRandomTransformer(
  folder: string,
  config: Config,
  quantize?: string,
  options?: WriteCheckpointOptions,
): Promise<void> {
  const shapes = transformerShapes(config);
  const model = new FluxTransformer2DModel(config);
  const quantizer = quantizerOf(model, config, shapes, quantize);
  const infos = weightInfos(model, shapes, quantizer);
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
