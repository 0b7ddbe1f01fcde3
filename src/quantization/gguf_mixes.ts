/**
 * Which type each tensor of a model gets. The rules are those of city96's conversion tools for Flux
 * (ComfyUI-GGUF, tools/convert.py and lcpp.patch), read for both names of a tensor: Black Forest Labs'
 * and Diffusers'. T5 has rules of its own.
 */

import type { GgufQuantType } from "./gguf_quantizers.ts";
import { type T5Tensor, t5TypeFor } from "./gguf_t5_mixes.ts";

/** A name that `--quantize gguf:NAME` takes. */
export type GgufMix =
  | GgufQuantType
  | "Q3_K_S"
  | "Q3_K_M"
  | "Q3_K_L"
  | "Q4_K_S"
  | "Q4_K_M"
  | "Q5_K_S"
  | "Q5_K_M";

interface MixTypes {
  /** Of nearly all weights. */
  readonly base: GgufQuantType;
  /** Of the double blocks' joint query, key and value projections. */
  readonly qkv: GgufQuantType;
  /** The number of the mix in `general.file_type`. */
  readonly fileType: number;
}

const same = (base: GgufQuantType, fileType: number): MixTypes => ({ base, qkv: base, fileType });

/** All mixes. Plain K types are the small ones (_S) of llama.cpp. */
export const GGUF_MIXES: Readonly<Record<GgufMix, MixTypes>> = {
  Q4_0: same("Q4_0", 2),
  Q4_1: same("Q4_1", 3),
  Q5_0: same("Q5_0", 8),
  Q5_1: same("Q5_1", 9),
  Q8_0: same("Q8_0", 7),
  Q2_K: same("Q2_K", 10),
  Q3_K: same("Q3_K", 11),
  Q3_K_S: same("Q3_K", 11),
  Q3_K_M: { base: "Q3_K", qkv: "Q4_K", fileType: 12 },
  Q3_K_L: { base: "Q3_K", qkv: "Q4_K", fileType: 13 },
  Q4_K: same("Q4_K", 14),
  Q4_K_S: same("Q4_K", 14),
  Q4_K_M: { base: "Q4_K", qkv: "Q5_K", fileType: 15 },
  Q5_K: same("Q5_K", 16),
  Q5_K_S: same("Q5_K", 16),
  Q5_K_M: { base: "Q5_K", qkv: "Q6_K", fileType: 17 },
  Q6_K: same("Q6_K", 18),
  IQ4_NL: same("IQ4_NL", 25),
  IQ4_XS: same("IQ4_XS", 30),
  MXFP4: same("MXFP4", 38),
  NVFP4: same("NVFP4", 39),
};

/** Tensors this small stay dense. */
export const SMALLEST_QUANTIZED = 1024;

/** The joint projections of the double blocks. */
const QKV =
  /^double_blocks\.\d+\.(img|txt)_attn\.qkv\.|^transformer_blocks\.\d+\.attn\.(to_[qkv]|add_[qkv]_proj)\./;

/** Modules that stay dense: what enters and leaves the transformer, and T5's distance biases. */
const DENSE = [
  /^(txt_in|img_in|time_in|vector_in|guidance_in|final_layer)(\.|$)/,
  /^(context_embedder|x_embedder|time_text_embed|norm_out|proj_out)(\.|$)/,
  /(^|\.)(attn_rel_b|relative_attention_bias)$/,
];

/** Whether a value names a mix. */
export function isGgufMix(value: unknown): value is GgufMix {
  return typeof value === "string" && Object.hasOwn(GGUF_MIXES, value);
}

/** The type of a tensor (by its whole name) in a mix. Its blocks need not divide the tensor's rows. */
export function ggufTypeFor(mix: GgufMix, tensor: T5Tensor): GgufQuantType {
  const { base, qkv } = GGUF_MIXES[mix];
  if (QKV.test(tensor.name)) return qkv;
  return t5TypeFor(mix, base, tensor) ?? base;
}

/** How many layers of T5 the tensors of these names make. */
export function t5Layers(names: Iterable<string>): number {
  let layers = 0;
  for (const name of names) {
    const match = /^(?:enc\.blk|encoder\.block)\.(\d{1,4})\./.exec(name);
    if (match !== null) layers = Math.max(layers, Number(match[1]) + 1);
  }
  return layers;
}

/** Whether a module (a dotted name) stays dense in every mix. */
export function staysDense(module: string): boolean {
  return DENSE.some((pattern) => pattern.test(module));
}
