/** The config of AutoencoderKL. */

import {
  type Config,
  configBoolean,
  configNumber,
  configNumbers,
  configString,
  invalidConfig,
} from "../io/config.ts";
import { CONFIG_LIMITS, configCount, requireLayerTypes } from "./config_limits.ts";

/** config.json of AutoencoderKL with the class defaults applied. */
export interface AutoencoderKLConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly latentChannels: number;
  /** Channels of each resolution, finest first. */
  readonly blockOutChannels: readonly number[];
  /** Residual blocks per resolution of the encoder; the decoder has one more. */
  readonly layersPerBlock: number;
  readonly normNumGroups: number;
  readonly actFn: string;
  /** Side of the pictures it was made for, in pixels. */
  readonly sampleSize: number;
  readonly scalingFactor: number;
  readonly shiftFactor: number;
  readonly useQuantConv: boolean;
  readonly usePostQuantConv: boolean;
  readonly midBlockAddAttention: boolean;
}

/** Parses config.json; throws `invalid_config` naming the key, `unsupported` for other block types. */
export function parseAutoencoderKLConfig(config: Config): AutoencoderKLConfig {
  const { layers, features } = CONFIG_LIMITS;
  requireLayerTypes(config, "down_block_types", "DownEncoderBlock2D");
  requireLayerTypes(config, "up_block_types", "UpDecoderBlock2D");
  const parsed = {
    inChannels: configCount(config, "in_channels", 3, features),
    outChannels: configCount(config, "out_channels", 3, features),
    latentChannels: configCount(config, "latent_channels", 4, features),
    blockOutChannels: configNumbers(config, "block_out_channels", {
      default: [64],
      min: 1,
      max: features,
    }),
    layersPerBlock: configCount(config, "layers_per_block", 1, layers),
    normNumGroups: configCount(config, "norm_num_groups", 32, features),
    actFn: configString(config, "act_fn", { default: "silu" }),
    sampleSize: configCount(config, "sample_size", 32, 1 << 20),
    scalingFactor: configNumber(config, "scaling_factor", {
      default: 0.18215,
      min: Number.MIN_VALUE,
      integer: false,
    }),
    shiftFactor: configNumber(config, "shift_factor", { default: 0, integer: false }),
    useQuantConv: configBoolean(config, "use_quant_conv", true),
    usePostQuantConv: configBoolean(config, "use_post_quant_conv", true),
    midBlockAddAttention: configBoolean(config, "mid_block_add_attention", true),
  };
  const { blockOutChannels: channels, normNumGroups: groups } = parsed;
  const { length } = channels;
  if (length < 1 || length > 12 || channels.some((count) => count % groups !== 0)) {
    const expected = `1 to 12 multiples of norm_num_groups ${groups}`;
    throw invalidConfig("block_out_channels", channels, expected);
  }
  return parsed;
}
