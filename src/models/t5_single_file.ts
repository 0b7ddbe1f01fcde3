/** T5EncoderModel under the names of llama.cpp, as GGUF files have it. */

import { HalftoneError } from "../errors.ts";
import type { Checkpoint } from "../io/checkpoint.ts";
import { type TensorView, viewCheckpoint } from "../io/checkpoint_view.ts";

/** Parts of a block: llama.cpp's and Transformers' names. */
const BLOCK: readonly (readonly [string, string])[] = [
  ["attn_norm", "layer.0.layer_norm"],
  ["attn_q", "layer.0.SelfAttention.q"],
  ["attn_k", "layer.0.SelfAttention.k"],
  ["attn_v", "layer.0.SelfAttention.v"],
  ["attn_o", "layer.0.SelfAttention.o"],
  ["attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"],
  ["ffn_norm", "layer.1.layer_norm"],
  ["ffn_gate", "layer.1.DenseReluDense.wi_0"],
  ["ffn_up", "layer.1.DenseReluDense.wi_1"],
  ["ffn_down", "layer.1.DenseReluDense.wo"],
];

const OUTER: ReadonlyMap<string, string> = new Map([
  ["token_embd.weight", "shared.weight"],
  ["enc.output_norm.weight", "encoder.final_layer_norm.weight"],
]);

/** Transformers' name of a tensor; null for what an encoder does not need, such as a decoder's. */
function transformersName(name: string, gated: boolean): string | null {
  const outer = OUTER.get(name);
  if (outer !== undefined) return outer;
  const match = /^enc\.blk\.(\d+)\.(\w+)\.weight$/.exec(name);
  const part = BLOCK.find(([single]) => single === match?.[2])?.[1];
  if (match === null || part === undefined) return null;
  const spelled = !gated && match[2] === "ffn_up" ? "layer.1.DenseReluDense.wi" : part;
  return `encoder.block.${match[1]}.${spelled}.weight`;
}

/** The checkpoint under Transformers' names; itself when it has them already. */
export function t5FromSingleFile(checkpoint: Checkpoint): Checkpoint {
  const { entries } = checkpoint;
  if (!entries.has("token_embd.weight")) return checkpoint;
  const gated = [...entries.keys()].some((name) => name.endsWith(".ffn_gate.weight"));
  const views = [...entries.values()].flatMap(({ name, shape }): TensorView[] => {
    const renamed = transformersName(name, gated);
    if (renamed === null) return [];
    return [{ name: renamed, parts: [{ source: name, start: 0, end: shape[0] }] }];
  });
  return viewCheckpoint(checkpoint, views);
}

/** The checkpoint under llama.cpp's names. Throws `unexpected_tensor` for one it has no name for. */
export function t5ToSingleFile(checkpoint: Checkpoint): Checkpoint {
  const { entries } = checkpoint;
  if (entries.has("token_embd.weight")) return checkpoint;
  const views = [...entries.values()].flatMap(({ name, shape }): TensorView[] => {
    // The alias of the embedding, which some checkpoints repeat.
    if (name === "encoder.embed_tokens.weight" && entries.has("shared.weight")) return [];
    return [{
      name: llamaName(name, checkpoint.path),
      parts: [{ source: name, start: 0, end: shape[0] }],
    }];
  });
  return viewCheckpoint(checkpoint, views);
}

function llamaName(name: string, file: string): string {
  const outer = [...OUTER].find(([, transformers]) => transformers === name)?.[0];
  if (outer !== undefined) return outer;
  if (name === "encoder.embed_tokens.weight") return "token_embd.weight";
  const match = /^encoder\.block\.(\d+)\.(.+)\.weight$/.exec(name);
  const part = match?.[2] === "layer.1.DenseReluDense.wi"
    ? "ffn_up"
    : BLOCK.find(([, transformers]) => transformers === match?.[2])?.[0];
  if (match !== null && part !== undefined) return `enc.blk.${match[1]}.${part}.weight`;
  throw new HalftoneError("unexpected_tensor", "Cannot name a tensor as GGUF files of T5 do", {
    file,
    tensor: name,
    remedy: "Only the encoder of T5 can be written so.",
  });
}
