/** PyTorch's default initialisation, so that models of Diffusers' own tests can be made again. */

import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
import type { FluxTransformerConfig } from "../../src/models/flux_transformer.ts";
import type { AutoencoderKLConfig } from "../../src/models/autoencoder_kl.ts";

/** Draws layers in the order PyTorch makes them. */
class Initializer {
  readonly weights = new Map<string, HostTensor>();
  readonly #generator = new TorchGenerator(0);

  /** nn.Linear. */
  linear(name: string, outputs: number, inputs: number): void {
    this.#layer(name, [outputs, inputs], inputs);
  }

  /** nn.Conv2d. */
  convolution(name: string, outputs: number, inputs: number, kernel: number): void {
    this.#layer(name, [outputs, inputs, kernel, kernel], inputs * kernel * kernel);
  }

  /** A norm, which draws nothing. */
  norm(name: string, size: number, hasBias: boolean): void {
    this.weights.set(`${name}.weight`, HostTensor.fromFloat32(new Float32Array(size).fill(1)));
    if (hasBias) this.weights.set(`${name}.bias`, HostTensor.zeros("float32", [size]));
  }

  #layer(name: string, shape: number[], fanIn: number): void {
    const bound = Math.sqrt(3) * (Math.sqrt(1 / 3) / Math.sqrt(fanIn));
    this.weights.set(`${name}.weight`, this.#uniform(shape, bound));
    this.weights.set(`${name}.bias`, this.#uniform([shape[0]], 1 / Math.sqrt(fanIn)));
  }

  /** from + u * (to - from), contracted to one rounding. */
  #uniform(shape: number[], bound: number): HostTensor {
    const from = Math.fround(-bound);
    const span = Math.fround(Math.fround(bound) - from);
    const values = this.#generator.rand(shape).toFloat32().map((u) => u * span + from);
    return HostTensor.fromFloat32(values, shape);
  }
}

/** FluxTransformer2DModel after torch.manual_seed(0). */
export function defaultTransformerWeights(config: FluxTransformerConfig): Map<string, HostTensor> {
  const make = new Initializer();
  const dim = config.numAttentionHeads * config.attentionHeadDim;
  const embedder = (name: string, inputs: number) => {
    make.linear(`time_text_embed.${name}.linear_1`, dim, inputs);
    make.linear(`time_text_embed.${name}.linear_2`, dim, dim);
  };
  embedder("timestep_embedder", 256);
  if (config.guidanceEmbeds) embedder("guidance_embedder", 256);
  embedder("text_embedder", config.pooledProjectionDim);
  make.linear("context_embedder", dim, config.jointAttentionDim);
  make.linear("x_embedder", dim, config.inChannels);
  for (let i = 0; i < config.numLayers; i++) {
    doubleBlock(make, `transformer_blocks.${i}`, dim, config);
  }
  for (let i = 0; i < config.numSingleLayers; i++) {
    singleBlock(make, `single_transformer_blocks.${i}`, dim, config);
  }
  make.linear("norm_out.linear", 2 * dim, dim);
  make.linear("proj_out", config.outChannels, dim);
  return make.weights;
}

function doubleBlock(make: Initializer, name: string, dim: number, config: FluxTransformerConfig) {
  make.linear(`${name}.norm1.linear`, 6 * dim, dim);
  make.linear(`${name}.norm1_context.linear`, 6 * dim, dim);
  const projections = [
    ...["to_q", "to_k", "to_v", "to_out.0"],
    ...["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"],
  ];
  for (const part of projections) make.linear(`${name}.attn.${part}`, dim, dim);
  for (const part of ["norm_q", "norm_k", "norm_added_q", "norm_added_k"]) {
    make.norm(`${name}.attn.${part}`, config.attentionHeadDim, false);
  }
  for (const part of ["ff", "ff_context"]) {
    make.linear(`${name}.${part}.net.0.proj`, 4 * dim, dim);
    make.linear(`${name}.${part}.net.2`, dim, 4 * dim);
  }
}

function singleBlock(make: Initializer, name: string, dim: number, config: FluxTransformerConfig) {
  make.linear(`${name}.norm.linear`, 3 * dim, dim);
  make.linear(`${name}.proj_mlp`, 4 * dim, dim);
  make.linear(`${name}.proj_out`, dim, 5 * dim);
  for (const part of ["to_q", "to_k", "to_v"]) make.linear(`${name}.attn.${part}`, dim, dim);
  for (const part of ["norm_q", "norm_k"]) {
    make.norm(`${name}.attn.${part}`, config.attentionHeadDim, false);
  }
}

/** AutoencoderKL with one resolution and no quant convolutions after torch.manual_seed(0). */
export function defaultVaeWeights(config: AutoencoderKLConfig): Map<string, HostTensor> {
  const make = new Initializer();
  const [width] = config.blockOutChannels;
  make.convolution("encoder.conv_in", width, config.inChannels, 3);
  resnets(make, "encoder.down_blocks.0", width, config.layersPerBlock);
  middle(make, "encoder.mid_block", width);
  head(make, "encoder", 2 * config.latentChannels, width);
  make.convolution("decoder.conv_in", width, config.latentChannels, 3);
  middle(make, "decoder.mid_block", width);
  resnets(make, "decoder.up_blocks.0", width, config.layersPerBlock + 1);
  head(make, "decoder", config.outChannels, width);
  return make.weights;
}

function resnets(make: Initializer, name: string, width: number, count: number): void {
  for (let i = 0; i < count; i++) resnet(make, `${name}.resnets.${i}`, width);
}

function resnet(make: Initializer, name: string, width: number): void {
  for (const part of ["1", "2"]) {
    make.norm(`${name}.norm${part}`, width, true);
    make.convolution(`${name}.conv${part}`, width, width, 3);
  }
}

/** Residual block, attention, residual block. */
function middle(make: Initializer, name: string, width: number): void {
  resnet(make, `${name}.resnets.0`, width);
  make.norm(`${name}.attentions.0.group_norm`, width, true);
  for (const part of ["to_q", "to_k", "to_v", "to_out.0"]) {
    make.linear(`${name}.attentions.0.${part}`, width, width);
  }
  resnet(make, `${name}.resnets.1`, width);
}

function head(make: Initializer, name: string, outputs: number, width: number): void {
  make.norm(`${name}.conv_norm_out`, width, true);
  make.convolution(`${name}.conv_out`, outputs, width, 3);
}
