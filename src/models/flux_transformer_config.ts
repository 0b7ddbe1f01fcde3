/** The config of FluxTransformer2DModel. */

import { type Config, configBoolean, configNumbers, invalidConfig } from "../io/config.ts";
import { CONFIG_LIMITS, configCount } from "./config_limits.ts";

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
  /** Features of a head. */
  readonly attentionHeadDim: number;
  /** Heads; with their features they make the width of the model. */
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
  const inChannels = configCount(config, "in_channels", 64, features);
  const parsed = {
    inChannels,
    outChannels: configCount(config, "out_channels", inChannels, features),
    numLayers: configCount(config, "num_layers", 19, layers, 0),
    numSingleLayers: configCount(config, "num_single_layers", 38, layers, 0),
    attentionHeadDim: configCount(config, "attention_head_dim", 128, features),
    numAttentionHeads: configCount(config, "num_attention_heads", 24, heads),
    jointAttentionDim: configCount(config, "joint_attention_dim", 4096, features),
    pooledProjectionDim: configCount(config, "pooled_projection_dim", 768, features),
    guidanceEmbeds: configBoolean(config, "guidance_embeds", false),
    axesDimsRope: configNumbers(config, "axes_dims_rope", {
      default: [16, 56, 56],
      min: 1,
      max: features,
    }),
  };
  configCount(config, "patch_size", 1, 1);
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
