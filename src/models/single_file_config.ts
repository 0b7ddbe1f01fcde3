/** What a model is, read off the shapes of its tensors: single files come without a config.json. */

import { HalftoneError } from "../errors.ts";
import { type Checkpoint, shapeInElements } from "../io/checkpoint.ts";
import type { Config } from "../io/config.ts";
import { t5Layers } from "../quantization/gguf_mixes.ts";
import type { Shape } from "../tensor/shape.ts";

/** FLUX.1's rotary axes, which no shape shows; they are those of its head width. */
const FLUX_AXES = { headDim: 128, axes: [16, 56, 56] } as const;

/**
 * config.json of the transformer whose tensors have these names (Diffusers'). Throws `missing_tensor`
 * for another model, `invalid_config` when its heads are not as wide as FLUX.1's.
 */
export function fluxConfigOf(checkpoint: Checkpoint): Config {
  const [dim, inChannels] = shapeOf(checkpoint, "x_embedder.weight");
  const [headDim] = shapeOf(checkpoint, "transformer_blocks.0.attn.norm_q.weight");
  if (headDim !== FLUX_AXES.headDim) throw unknownAxes(checkpoint.path, headDim);
  const [outChannels] = shapeOf(checkpoint, "proj_out.weight");
  const [, joint] = shapeOf(checkpoint, "context_embedder.weight");
  const [, pooled] = shapeOf(checkpoint, "time_text_embed.text_embedder.linear_1.weight");
  const guidance = "time_text_embed.guidance_embedder.linear_1.weight";
  return {
    _class_name: "FluxTransformer2DModel",
    attention_head_dim: headDim,
    axes_dims_rope: FLUX_AXES.axes,
    guidance_embeds: checkpoint.entries.has(guidance),
    in_channels: inChannels,
    joint_attention_dim: joint,
    num_attention_heads: dim / headDim,
    num_layers: blocks(checkpoint, "transformer_blocks"),
    num_single_layers: blocks(checkpoint, "single_transformer_blocks"),
    out_channels: outChannels,
    patch_size: 1,
    pooled_projection_dim: pooled,
  };
}

/**
 * config.json of the encoder of T5 (v1.1 when its MLP is gated) whose tensors have Transformers' names.
 * Throws `missing_tensor` for another model.
 */
export function t5ConfigOf(checkpoint: Checkpoint): Config {
  const { entries } = checkpoint;
  const block = "encoder.block.0.layer";
  const alias = "encoder.embed_tokens.weight";
  const table = !entries.has("shared.weight") && entries.has(alias) ? alias : "shared.weight";
  const [vocabulary, dim] = shapeOf(checkpoint, table);
  const bias = `${block}.0.SelfAttention.relative_attention_bias.weight`;
  const [buckets, heads] = shapeOf(checkpoint, bias);
  const [queries] = shapeOf(checkpoint, `${block}.0.SelfAttention.q.weight`);
  const isGated = entries.has(`${block}.1.DenseReluDense.wi_0.weight`);
  const wide = `${block}.1.DenseReluDense.${isGated ? "wi_0" : "wi"}.weight`;
  return {
    architectures: ["T5EncoderModel"],
    d_ff: shapeOf(checkpoint, wide)[0],
    d_kv: queries / heads,
    d_model: dim,
    feed_forward_proj: isGated ? "gated-gelu" : "relu",
    model_type: "t5",
    num_heads: heads,
    num_layers: t5Layers(entries.keys()),
    relative_attention_num_buckets: buckets,
    vocab_size: vocabulary,
  };
}

/** The shape in elements. */
function shapeOf(checkpoint: Checkpoint, name: string): Shape {
  const entry = checkpoint.entries.get(name);
  if (entry === undefined) throw otherModel(name, checkpoint.path);
  return shapeInElements(entry);
}

/** One more than the highest number of a block. */
function blocks({ entries }: Checkpoint, name: string): number {
  const numbers = [...entries.keys()].map((key) => key.split("."))
    .filter(([first, number]) => first === name && /^\d{1,4}$/.test(number ?? ""))
    .map(([, number]) => Number(number) + 1);
  return numbers.reduce((most, number) => Math.max(most, number), 0);
}

function otherModel(tensor: string, file: string): HalftoneError {
  return new HalftoneError("missing_tensor", "Cannot tell the config of a model from its file", {
    file,
    tensor,
    remedy: "The file is incomplete or belongs to another kind of model.",
  });
}

function unknownAxes(file: string, headDim: number): HalftoneError {
  return new HalftoneError("invalid_config", "Cannot tell the config of a model from its file", {
    file,
    field: "axes_dims_rope",
    found: `heads of ${headDim} features`,
    expected: `heads of ${FLUX_AXES.headDim}, as FLUX.1 has them`,
    remedy: "Give the config: a folder with config.json, or its content.",
  });
}
