/**
 * The Python classes of a model's modules, by their names: layerwise casting skips modules by class, and
 * casts whole modules of some classes only. Test goldens hold the classes of every module with weights.
 */

/** Patterns of module names, whole, and the class each means; the first that fits counts. */
export type ModuleClasses = readonly (readonly [RegExp, string])[];

/** The class of a module; undefined when the model has no such. */
export function classOf(classes: ModuleClasses, module: string): string | undefined {
  return classes.find(([pattern]) => pattern.test(module))?.[1];
}

/** FluxTransformer2DModel of Diffusers. */
export const FLUX_TRANSFORMER_CLASSES: ModuleClasses = [
  [/^$/, "FluxTransformer2DModel"],
  [/^time_text_embed\.(timestep|guidance)_embedder$/, "TimestepEmbedding"],
  [/^time_text_embed\.text_embedder$/, "PixArtAlphaTextProjection"],
  [/(^|\.)((single_)?transformer_blocks|to_out|net)$/, "ModuleList"],
  [/^transformer_blocks\.\d+$/, "FluxTransformerBlock"],
  [/^single_transformer_blocks\.\d+$/, "FluxSingleTransformerBlock"],
  [/^transformer_blocks\.\d+\.norm1(_context)?$/, "AdaLayerNormZero"],
  [/^single_transformer_blocks\.\d+\.norm$/, "AdaLayerNormZeroSingle"],
  [/^norm_out$/, "AdaLayerNormContinuous"],
  [/\.attn$/, "FluxAttention"],
  [/\.norm_(added_)?[qk]$/, "RMSNorm"],
  [/\.ff(_context)?$/, "FeedForward"],
  [/\.net\.0$/, "GELU"],
  [
    /(^|\.)((context|x)_embedder|linear(_\d)?|to_(q|k|v|add_out|out\.0)|add_[qkv]_proj|proj(_mlp|_out)?|net\.2)$/,
    "Linear",
  ],
];

/** The LayerNorms of a FluxTransformer2DModel, which have no weights, from the names of its tensors. */
export function fluxLayerNorms(tensors: Iterable<string>): string[] {
  return [...tensors].flatMap((name) => {
    const modulated = /^(?:(.*\.norm(?:1(?:_context)?)?|norm_out)\.linear)\.weight$/.exec(name);
    const mlp = /^(.*)\.ff(_context)?\.net\.0\.proj\.weight$/.exec(name);
    if (modulated) return [`${modulated[1]}.norm`];
    return mlp ? [`${mlp[1]}.norm2${mlp[2] ?? ""}`] : [];
  });
}

/** AutoencoderKL of Diffusers. */
export const AUTOENCODER_KL_CLASSES: ModuleClasses = [
  [/^$/, "AutoencoderKL"],
  [/^encoder$/, "Encoder"],
  [/^decoder$/, "Decoder"],
  [/\.(down_blocks|up_blocks|resnets|attentions|downsamplers|upsamplers|to_out)$/, "ModuleList"],
  [/\.down_blocks\.\d+$/, "DownEncoderBlock2D"],
  [/\.up_blocks\.\d+$/, "UpDecoderBlock2D"],
  [/\.mid_block$/, "UNetMidBlock2D"],
  [/\.resnets\.\d+$/, "ResnetBlock2D"],
  [/\.downsamplers\.\d+$/, "Downsample2D"],
  [/\.upsamplers\.\d+$/, "Upsample2D"],
  [/\.attentions\.\d+$/, "Attention"],
  [/\.(norm\d|group_norm|conv_norm_out)$/, "GroupNorm"],
  [/\.(to_[qkv]|to_out\.0|query|key|value|proj_attn)$/, "Linear"],
  [/(^|\.)(conv(_in|_out|\d|_shortcut)?|(post_)?quant_conv)$/, "Conv2d"],
];

/** CLIPTextModel of Transformers; older files have its modules under `text_model`. */
export const CLIP_TEXT_CLASSES: ModuleClasses = [
  [/^(text_model)?$/, "CLIPTextModel"],
  [/(^|\.)embeddings$/, "CLIPTextEmbeddings"],
  [/\.(token|position)_embedding$/, "Embedding"],
  [/(^|\.)encoder$/, "CLIPEncoder"],
  [/\.layers$/, "ModuleList"],
  [/\.layers\.\d+$/, "CLIPEncoderLayer"],
  [/\.self_attn$/, "CLIPAttention"],
  [/\.mlp$/, "CLIPMLP"],
  [/(^|\.)(layer_norm\d|final_layer_norm)$/, "LayerNorm"],
  [/(^|\.)([qkv]_proj|out_proj|fc\d|text_projection)$/, "Linear"],
];

/** T5EncoderModel of Transformers, whose gated feed-forward layers have `wi_0`. */
export const T5_ENCODER_CLASSES: ModuleClasses = [
  [/^$/, "T5EncoderModel"],
  [/^(shared|encoder\.embed_tokens)$|\.relative_attention_bias$/, "Embedding"],
  [/^encoder$/, "T5Stack"],
  [/\.(block|layer)$/, "ModuleList"],
  [/\.block\.\d+$/, "T5Block"],
  [/\.layer\.0$/, "T5LayerSelfAttention"],
  [/\.layer\.1$/, "T5LayerFF"],
  [/\.SelfAttention$/, "T5Attention"],
  [/\.DenseReluDense$/, "T5DenseGatedActDense"],
  [/\.(final_)?layer_norm$/, "T5LayerNorm"],
  [/\.(q|k|v|o|wi|wi_0|wi_1|wo)$/, "Linear"],
];
