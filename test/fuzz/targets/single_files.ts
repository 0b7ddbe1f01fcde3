/** Checkpoints under the names of single files, which are taken apart and put together by rows. */

import { readFileSync } from "node:fs";
import { type Checkpoint, checkpointFromSources } from "../../../src/io/checkpoint.ts";
import { serializeSafetensors } from "../../../src/io/safetensors_writer.ts";
import { fluxFromSingleFile, fluxToSingleFile } from "../../../src/models/flux_single_file.ts";
import { t5FromSingleFile, t5ToSingleFile } from "../../../src/models/t5_single_file.ts";
import { memorySource } from "../../../src/runtime/byte_source.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import type { Shape } from "../../../src/tensor/shape.ts";
import { randomValues, tensorOf } from "../../quantization/support.ts";
import type { FuzzTarget } from "../target.ts";
import { mutateCheckpoint } from "./mutate_checkpoint.ts";
import type { StoredCheckpoint, StoredTensor } from "./checkpoints.ts";

const GOLDEN = JSON.parse(
  readFileSync(new URL("../../goldens/gguf/single_file.json", import.meta.url), "utf8"),
) as { readonly single: Readonly<Record<string, Shape>> };

/** Names of Black Forest Labs, to Diffusers' and back. */
export const FLUX_SINGLE_FILE_TARGET: FuzzTarget<StoredCheckpoint> = singleFileTarget(
  "flux",
  8,
  GOLDEN.single,
  fluxFromSingleFile,
  fluxToSingleFile,
);

const T5_PARTS = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up"];

/** Names of llama.cpp, to Transformers' and back. */
export const T5_SINGLE_FILE_TARGET: FuzzTarget<StoredCheckpoint> = singleFileTarget(
  "t5",
  4,
  Object.fromEntries([
    ["token_embd.weight", [4, 4]],
    ["enc.output_norm.weight", [4]],
    ...T5_PARTS.map((part) => [`enc.blk.0.${part}.weight`, part === "attn_norm" ? [4] : [4, 4]]),
  ]),
  t5FromSingleFile,
  t5ToSingleFile,
);

function singleFileTarget(
  model: string,
  slowness: number,
  shapes: Readonly<Record<string, Shape>>,
  from: (checkpoint: Checkpoint) => Checkpoint,
  to: (checkpoint: Checkpoint) => Checkpoint,
): FuzzTarget<StoredCheckpoint> {
  const tensors = Object.entries(shapes).map(([name, shape], seed): StoredTensor => {
    const count = shape.reduce((product, size) => product * size, 1);
    const { dtype, bytes } = tensorOf(randomValues(count, seed), [...shape]);
    return { name, dtype, shape, bytes };
  });
  return {
    name: `single file of ${model}`,
    slowness,
    make: (random) => mutateCheckpoint(random, { tensors, metadata: {} }),
    size: ({ tensors }) => tensors.reduce((sum, { bytes }) => sum + bytes.length, 2 ** 16),
    run: async (stored) => {
      const renamed = from(await checkpointOf(stored));
      for (const name of renamed.entries.keys()) await renamed.read(name);
      to(renamed);
    },
  };
}

function checkpointOf({ tensors, metadata }: StoredCheckpoint): Promise<Checkpoint> {
  const named = tensors.map(({ name, dtype, shape, bytes }) =>
    [name, new HostTensor(dtype, shape, bytes)] as const
  );
  const file = serializeSafetensors(new Map(named), metadata);
  return checkpointFromSources("fuzz", [memorySource(file)]);
}
