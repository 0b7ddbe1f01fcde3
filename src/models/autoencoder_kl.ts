/**
 * AutoencoderKL: pictures to latents and back, a convolutional autoencoder with one attention
 * layer in the middle. Pictures and latents are [height, width, channels].
 *
 * After Diffusers, src/diffusers/models/autoencoders/{autoencoder_kl,vae}.py.
 */

import type { Config } from "../io/config.ts";
import type { Graph, Tensor } from "../ops/graph.ts";
import { add, attention, conv2d, groupNorm, upsampleNearest2x } from "../ops/builders.ts";
import { type AutoencoderKLConfig, parseAutoencoderKLConfig } from "./autoencoder_kl_config.ts";
import { activationByName, linearLayer } from "./layers.ts";
import { AUTOENCODER_KL_CLASSES, classOf } from "./module_classes.ts";

export type { AutoencoderKLConfig } from "./autoencoder_kl_config.ts";

const EPSILON = 1e-6;

/** Height and width in pixels (encode) or latent pixels (decode). */
export interface PictureSizes {
  readonly height: number;
  readonly width: number;
}

/** The autoencoder of FLUX.1 (and of Stable Diffusion), for any config. */
export class AutoencoderKL {
  /** The parsed config.json. */
  readonly config: AutoencoderKLConfig;
  readonly #activation: (x: Tensor) => Tensor;

  /** Takes the content of config.json; throws `invalid_config`. */
  constructor(config: Config) {
    this.config = parseAutoencoderKLConfig(config);
    this.#activation = activationByName(this.config.actFn, "act_fn");
  }

  /** Pixels per latent pixel, each way. */
  get scaleFactor(): number {
    return 2 ** (this.config.blockOutChannels.length - 1);
  }

  /** Latent pixels of a side that is decoded whole; Diffusers' tiling begins above it. */
  get tileLatentSize(): number {
    return Math.max(1, Math.trunc(this.config.sampleSize / this.scaleFactor));
  }

  /** The Python class of a module. */
  classOfModule(module: string): string | undefined {
    return classOf(AUTOENCODER_KL_CLASSES, module);
  }

  /** Whether a checkpoint tensor is the weight of a linear layer. */
  isLinearWeight(name: string): boolean {
    return /\.attentions\.\d+\.(to_q|to_k|to_v|to_out\.0|query|key|value|proj_attn)\.weight$/
      .test(name);
  }

  /**
   * Input: latents [height, width, latent channels], already unscaled. Output: image
   * [scaleFactor * height, scaleFactor * width, out channels], about -1..1, not clamped.
   */
  captureDecode(graph: Graph, sizes: PictureSizes): void {
    const { latentChannels, blockOutChannels, usePostQuantConv, outChannels } = this.config;
    const channels = blockOutChannels.toReversed(); // coarsest first
    let x = graph.input("latents", [sizes.height, sizes.width, latentChannels]);
    if (usePostQuantConv) x = convolution(graph, x, "post_quant_conv", latentChannels, 1);
    x = convolution(graph, x, "decoder.conv_in", channels[0], 3);
    x = this.#middle(graph, x, "decoder.mid_block");
    channels.forEach((width, level) => {
      const name = `decoder.up_blocks.${level}`;
      x = this.#resnets(graph, x, name, width, this.config.layersPerBlock + 1);
      if (level === channels.length - 1) return;
      x = convolution(graph, upsampleNearest2x(x), `${name}.upsamplers.0.conv`, width, 3);
    });
    graph.output("image", this.#head(graph, x, "decoder", outChannels));
  }

  /**
   * Input: image [height, width, in channels], -1..1. Outputs: mean and logvar, each
   * [height / scaleFactor, width / scaleFactor, latent channels]; logvar is not clamped.
   */
  captureEncode(graph: Graph, sizes: PictureSizes): void {
    const { inChannels, latentChannels, blockOutChannels: channels, useQuantConv } = this.config;
    let x = graph.input("image", [sizes.height, sizes.width, inChannels]);
    x = convolution(graph, x, "encoder.conv_in", channels[0], 3);
    channels.forEach((width, level) => {
      const name = `encoder.down_blocks.${level}`;
      x = this.#resnets(graph, x, name, width, this.config.layersPerBlock);
      if (level < channels.length - 1) x = downsample(graph, x, `${name}.downsamplers.0.conv`);
    });
    x = this.#middle(graph, x, "encoder.mid_block");
    let moments = this.#head(graph, x, "encoder", 2 * latentChannels);
    if (useQuantConv) moments = convolution(graph, moments, "quant_conv", 2 * latentChannels, 1);
    graph.output("mean", moments.slice(2, 0, latentChannels));
    graph.output("logvar", moments.slice(2, latentChannels, 2 * latentChannels));
  }

  #middle(graph: Graph, x: Tensor, name: string): Tensor {
    const channels = x.shape[2];
    x = this.#resnet(graph, x, `${name}.resnets.0`, channels);
    if (this.config.midBlockAddAttention) x = this.#attention(graph, x, `${name}.attentions.0`);
    return this.#resnet(graph, x, `${name}.resnets.1`, channels);
  }

  #resnets(graph: Graph, x: Tensor, name: string, channels: number, count: number): Tensor {
    for (let index = 0; index < count; index++) {
      x = this.#resnet(graph, x, `${name}.resnets.${index}`, channels);
    }
    return x;
  }

  #resnet(graph: Graph, x: Tensor, name: string, channels: number): Tensor {
    // First, so that the norm can then overwrite x: at 1024x1024 that saves half a gigabyte.
    const shortcut = x.shape[2] === channels
      ? x
      : convolution(graph, x, `${name}.conv_shortcut`, channels, 1);
    let h = this.#activation(this.#groupNorm(graph, x, `${name}.norm1`));
    h = convolution(graph, h, `${name}.conv1`, channels, 3);
    h = this.#activation(this.#groupNorm(graph, h, `${name}.norm2`));
    h = convolution(graph, h, `${name}.conv2`, channels, 3);
    return add(shortcut, h);
  }

  /** Attention of every pixel to every pixel with one head over all channels. */
  #attention(graph: Graph, x: Tensor, name: string): Tensor {
    const [height, width, channels] = x.shape;
    const names = attentionNames(graph, name);
    const pixels = this.#groupNorm(graph, x, `${name}.group_norm`)
      .reshape([height * width, channels]);
    const attended = attention(
      linearLayer(graph, pixels, names.q, channels),
      linearLayer(graph, pixels, names.k, channels),
      linearLayer(graph, pixels, names.v, channels),
      { heads: 1, scale: 1 / Math.sqrt(channels) },
    );
    const residual = x.reshape([height * width, channels]);
    return add(residual, linearLayer(graph, attended, names.out, channels)).reshape(x.shape);
  }

  /** Norm, activation and the last convolution of either half. */
  #head(graph: Graph, x: Tensor, name: string, channels: number): Tensor {
    const h = this.#activation(this.#groupNorm(graph, x, `${name}.conv_norm_out`));
    return convolution(graph, h, `${name}.conv_out`, channels, 3);
  }

  #groupNorm(graph: Graph, x: Tensor, name: string): Tensor {
    const channels = x.shape[2];
    return groupNorm(x, {
      groups: this.config.normNumGroups,
      epsilon: EPSILON,
      weight: graph.weight(`${name}.weight`, [channels]),
      bias: graph.weight(`${name}.bias`, [channels]),
    });
  }
}

/** A convolution with bias that keeps height and width. */
function convolution(
  graph: Graph,
  x: Tensor,
  name: string,
  channels: number,
  kernel: number,
): Tensor {
  return convolve(graph, x, name, channels, { kernel, padding: (kernel - 1) / 2 });
}

/** Halves height and width; zeros are added below and to the right only. */
function downsample(graph: Graph, x: Tensor, name: string): Tensor {
  return convolve(graph, x, name, x.shape[2], { kernel: 3, stride: 2, padding: [0, 0, 1, 1] });
}

function convolve(
  graph: Graph,
  x: Tensor,
  name: string,
  channels: number,
  options: Parameters<typeof conv2d>[3],
): Tensor {
  const { kernel } = options;
  const shape = [channels, x.shape[2], kernel, kernel];
  const weight = graph.weight(`${name}.weight`, shape, "convolution");
  return conv2d(x, weight, graph.weight(`${name}.bias`, [channels]), options);
}

/** Checkpoints of before 2023 call the projections query, key, value and proj_attn. */
function attentionNames(graph: Graph, name: string): Record<"q" | "k" | "v" | "out", string> {
  const isOld = graph.has(`${name}.query.weight`);
  const [q, k, v, out] = isOld
    ? ["query", "key", "value", "proj_attn"]
    : ["to_q", "to_k", "to_v", "to_out.0"];
  return { q: `${name}.${q}`, k: `${name}.${k}`, v: `${name}.${v}`, out: `${name}.${out}` };
}
