/** A checkpoint as the tools that read GGUF files expect it: their tensor names and architecture. */

import { HalftoneError } from "../errors.ts";
import type { Checkpoint } from "../io/checkpoint.ts";
import { fluxToSingleFile } from "./flux_single_file.ts";
import { t5ToSingleFile } from "./t5_single_file.ts";

/** What to write. */
export interface GgufFile {
  /** `general.architecture`. */
  readonly architecture: "flux" | "t5encoder";
  /** The checkpoint under the names of such files. */
  readonly checkpoint: Checkpoint;
}

/**
 * The transformer of FLUX.1 or the encoder of T5, told by the names of its tensors, under the names
 * of ComfyUI-GGUF, stable-diffusion.cpp and llama.cpp. Throws `unsupported` for another model.
 */
export function ggufFileOf(checkpoint: Checkpoint): GgufFile {
  const has = (name: string): boolean => checkpoint.entries.has(name);
  if (has("x_embedder.weight") || has("img_in.weight")) {
    return { architecture: "flux", checkpoint: fluxToSingleFile(checkpoint) };
  }
  if (has("encoder.block.0.layer.0.SelfAttention.q.weight") || has("enc.blk.0.attn_q.weight")) {
    return { architecture: "t5encoder", checkpoint: t5ToSingleFile(checkpoint) };
  }
  throw new HalftoneError("unsupported", "Cannot write this model as a GGUF file", {
    file: checkpoint.path,
    expected: "the transformer of FLUX.1 or the encoder of T5",
  });
}
