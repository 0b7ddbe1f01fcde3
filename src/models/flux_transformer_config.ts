/** The config of FluxTransformer2DModel. */

import {
  type Config,
  configBoolean,
  configNumber,
  configNumbers,
  invalidConfig,
} from "../io/config.ts";
import { CONFIG_LIMITS } from "./config_limits.ts";

/** config.json of FluxTransformer2DModel with the class defaults applied. */
export interface FluxTransformerConfig {
  /** Features of a packed latent token. */
  readonly inChannels: number;
  /** Features of a velocity token. */
  readonly outChannels: number;
  /** Double blocks. */
  readonly numLayers: number;
  /** Single blocks. */
  readonly numSingleLayers: number;
  readonly attentionHeadDim: number;
  readonly numAttentionHeads: number;
  /** Features of a text token. */
  readonly jointAttentionDim: number;
  /** Features of the pooled prompt. */
  readonly pooledProjectionDim: number;
  /** Whether the model was distilled with the guidance scale as an input. */
  readonly guidanceEmbeds: boolean;
  /** Widths of the rotary axes; they add up to the head dim. */
  readonly axesDimsRope: readonly number[];
}

/** Parses config.json; throws `invalid_config` naming the key. */
export function parseFluxTransformerConfig(config: Config): FluxTransformerConfig {
  const { layers, heads, features } = CONFIG_LIMITS;
  const inChannels = configNumber(config, "in_channels", { default: 64, min: 1, max: features });
  const parsed = {
    inChannels,
    outChannels: configNumber(config, "out_channels", {
      default: inChannels,
      min: 1,
      max: features,
    }),
    numLayers: configNumber(config, "num_layers", { default: 19, min: 0, max: layers }),
    numSingleLayers: configNumber(config, "num_single_layers", {
      default: 38,
      min: 0,
      max: layers,
    }),
    attentionHeadDim: configNumber(config, "attention_head_dim", {
      default: 128,
      min: 1,
      max: features,
    }),
    numAttentionHeads: configNumber(config, "num_attention_heads", {
      default: 24,
      min: 1,
      max: heads,
    }),
    jointAttentionDim: configNumber(config, "joint_attention_dim", {
      default: 4096,
      min: 1,
      max: features,
    }),
    pooledProjectionDim: configNumber(config, "pooled_projection_dim", {
      default: 768,
      min: 1,
      max: features,
    }),
    guidanceEmbeds: configBoolean(config, "guidance_embeds", false),
    axesDimsRope: configNumbers(config, "axes_dims_rope", {
      default: [16, 56, 56],
      min: 1,
      max: features,
    }),
  };
  configNumber(config, "patch_size", { default: 1, min: 1, max: 1 });
  checkAxes(parsed);
  return parsed;
}

function checkAxes(config: FluxTransformerConfig): void {
  const { axesDimsRope: axes, attentionHeadDim } = config;
  const total = axes.reduce((sum, dim) => sum + dim, 0);
  if (axes.length === 3 && total === attentionHeadDim && axes.every((dim) => dim % 2 === 0)) return;
  const expected = `three even widths that add up to attention_head_dim ${attentionHeadDim}`;
  throw invalidConfig("axes_dims_rope", axes, expected);
}
