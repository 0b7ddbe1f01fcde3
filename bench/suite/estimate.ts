/**
 * What a picture of FLUX.1 should take on other machines: the operations of its plans over measured rates
 * of one core, times the cores, times what a second thread brought here. An estimate, no measurement.
 */

import type { Config } from "../../src/io/config.ts";
import { AutoencoderKL } from "../../src/models/autoencoder_kl.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { T5EncoderModel } from "../../src/models/t5.ts";
import type { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { type Operations, operationsOf } from "../operations.ts";
import { ShapeRecorder } from "../random_component.ts";
import { fluxConfig } from "../random_transformer.ts";
import type { Results } from "./results.ts";

/** A picture somebody may want. */
export interface Picture {
  readonly name: string;
  /** Pixels of a side. */
  readonly pixels: number;
  readonly steps: number;
  readonly textTokens: number;
}

/** The pictures of the table. */
export const PICTURES: readonly Picture[] = [
  { name: "FLUX.1 [schnell], 512 x 512, 4 steps", pixels: 512, steps: 4, textTokens: 256 },
  { name: "FLUX.1 [schnell], 1024 x 1024, 4 steps", pixels: 1024, steps: 4, textTokens: 256 },
  { name: "FLUX.1 [dev], 1024 x 1024, 28 steps", pixels: 1024, steps: 28, textTokens: 512 },
];

/** Machines of the table. */
export const CORES = [2, 8, 16, 64] as const;

const PIXELS_PER_TOKEN = 16;
const PIXELS_PER_LATENT = 8;

const VAE: Config = {
  _class_name: "AutoencoderKL",
  block_out_channels: [128, 256, 512, 512],
  down_block_types: new Array(4).fill("DownEncoderBlock2D"),
  up_block_types: new Array(4).fill("UpDecoderBlock2D"),
  in_channels: 3,
  out_channels: 3,
  latent_channels: 16,
  layers_per_block: 2,
  norm_num_groups: 32,
  sample_size: 1024,
  scaling_factor: 0.3611,
  shift_factor: 0.1159,
  use_quant_conv: false,
  use_post_quant_conv: false,
};

const T5: Config = {
  architectures: ["T5EncoderModel"],
  model_type: "t5",
  d_ff: 10240,
  d_kv: 64,
  d_model: 4096,
  feed_forward_proj: "gated-gelu",
  num_heads: 64,
  num_layers: 24,
  vocab_size: 32128,
};

/** Billions of operations per second of one core. */
export interface Rates {
  readonly linear: number;
  readonly attention: number;
  readonly convolution: number;
  /** What part of its own speed a further core adds. */
  readonly efficiency: number;
}

/** Rates from the results of a runtime; undefined where a part was not measured. */
export function measuredRates(results: Results, runtime: string): Rates | undefined {
  const linear = results.contender("linear-int4", runtime, "4-bit linear", "halftone")?.rate;
  const float = results.contender("linear-float32", runtime, "float32 linear", "halftone")?.rate;
  const attention = results.contender("attention", runtime, "attention", "halftone")?.rate;
  const threads = results.ratios("threads", runtime, "threads, float32")[0]?.wall;
  if (!linear || !float || !attention || !threads) return undefined;
  // Convolutions run on the float microkernel; attention was measured on two threads.
  const efficiency = threads / 2;
  return { linear, convolution: float, attention: attention / threads, efficiency };
}

/** Seconds of a picture on so many cores. */
export function estimatedSeconds(picture: Picture, rates: Rates, cores: number): number {
  const operations = operationsOfPicture(picture);
  const onOneCore = operations.linear / rates.linear + operations.attention / rates.attention +
    operations.convolution / rates.convolution;
  return onOneCore / 1e9 / (cores * rates.efficiency);
}

/** T5 once, the transformer once a step, the decoder once; CLIP and modulation weigh nothing. */
export function operationsOfPicture({ pixels, steps, textTokens }: Picture): Operations {
  const side = pixels / PIXELS_PER_TOKEN;
  const transformer = new FluxTransformer2DModel(fluxConfig(19, 38));
  const t5 = new T5EncoderModel(T5);
  const vae = new AutoencoderKL(VAE);
  const latents = pixels / PIXELS_PER_LATENT;
  const parts: readonly (readonly [times: number, operations: Operations])[] = [
    [1, captured((graph) => t5.captureEncode(graph, { tokens: textTokens }))],
    [
      steps,
      captured((graph) =>
        transformer.captureDenoise(graph, { height: side, width: side, textTokens })
      ),
    ],
    [1, captured((graph) => vae.captureDecode(graph, { height: latents, width: latents }))],
  ];
  const sum = (kind: keyof Operations) =>
    parts.reduce((total, [times, operations]) => total + times * operations[kind], 0);
  return { linear: sum("linear"), attention: sum("attention"), convolution: sum("convolution") };
}

function captured(capture: (graph: Graph) => void): Operations {
  const graph = new ShapeRecorder();
  capture(graph);
  return operationsOf(buildPlan(graph, { supports: () => true }));
}
