/** FLUX.1 with random weights: every part of a pipeline but tokenizers, so that a picture's memory can be measured. */

import type { Config } from "../src/io/config.ts";
import { AutoencoderKL } from "../src/models/autoencoder_kl.ts";
import { CLIPTextModel } from "../src/models/clip.ts";
import { T5EncoderModel } from "../src/models/t5.ts";
import type { FluxComponents } from "../src/pipelines/flux_components.ts";
import type { PromptTokenizer } from "../src/pipelines/text_encoding.ts";
import { FlowMatchEulerDiscreteScheduler } from "../src/schedulers/flow_match_euler.ts";
import { randomComponent, shapesOf } from "./random_component.ts";
import { decoderConfig } from "./random_decoder.ts";
import { randomTransformer } from "./random_transformer.ts";

/** Sizes of the parts. */
export interface RandomFluxSizes {
  readonly transformer: Config;
  /** Layers, heads and features of both text encoders are scaled by it: 1 is FLUX.1's. */
  readonly textScale: number;
  /** Channels of the decoder's finest resolution. */
  readonly decoderWidth: number;
}

/** FLUX.1's text_encoder/config.json. */
function clipConfig(scale: number): Config {
  const twelve = Math.max(1, Math.round(12 * scale));
  return {
    hidden_act: "quick_gelu",
    hidden_size: 64 * twelve,
    intermediate_size: 256 * twelve,
    max_position_embeddings: 77,
    num_attention_heads: twelve,
    num_hidden_layers: twelve,
    vocab_size: 49408,
  };
}

/** FLUX.1's text_encoder_2/config.json, T5 v1.1 XXL. */
function t5Config(scale: number): Config {
  const heads = Math.max(1, Math.round(64 * scale));
  return {
    d_ff: 160 * heads,
    d_kv: 64,
    d_model: 64 * heads,
    feed_forward_proj: "gated-gelu",
    num_heads: heads,
    num_layers: Math.max(1, Math.round(24 * scale)),
    vocab_size: 32128,
  };
}

/** Nothing is asked of it: ids of tokens are random too. */
const NO_TOKENIZER: PromptTokenizer = {
  encodeText: () => {
    throw new TypeError("random weights know no words");
  },
};

/** The parts, transformer and T5 in a format. */
export async function randomFlux(
  { transformer, textScale, decoderWidth }: RandomFluxSizes,
  quantize: string,
): Promise<FluxComponents> {
  const [clip, t5] = [clipConfig(textScale), t5Config(textScale)];
  const clipModel = new CLIPTextModel(clip), t5Model = new T5EncoderModel(t5);
  const vae = decoderConfig(decoderWidth), vaeModel = new AutoencoderKL(vae);
  return {
    folder: "random",
    scheduler: FlowMatchEulerDiscreteScheduler.fromConfig({}),
    transformer: await randomTransformer(transformer, quantize),
    vae: await randomComponent({
      name: "vae",
      model: vaeModel,
      config: vae,
      shapes: shapesOf((graph) => vaeModel.captureDecode(graph, { height: 1, width: 1 })),
    }),
    clip: {
      tokenizer: NO_TOKENIZER,
      component: await randomComponent({
        name: "text_encoder",
        model: clipModel,
        config: clip,
        shapes: shapesOf((graph) => clipModel.captureEncode(graph, { tokens: 1 })),
      }),
    },
    t5: {
      tokenizer: NO_TOKENIZER,
      component: await randomComponent({
        name: "text_encoder_2",
        model: t5Model,
        config: t5,
        shapes: shapesOf((graph) => t5Model.captureEncode(graph, { tokens: 1 })),
        quantize,
      }),
    },
  };
}
