/** Single files opened as models without a config: what the model is, and its weights, scaled ones too. */

import { type Checkpoint, checkpointFromSources } from "../../../src/io/checkpoint.ts";
import type { Config } from "../../../src/io/config.ts";
import { serializeSafetensors } from "../../../src/io/safetensors_writer.ts";
import { fluxFromSingleFile } from "../../../src/models/flux_single_file.ts";
import { FluxTransformer2DModel } from "../../../src/models/flux_transformer.ts";
import type { PretrainedModel } from "../../../src/models/pretrained_model.ts";
import { fluxConfigOf, t5ConfigOf } from "../../../src/models/single_file_config.ts";
import { t5FromSingleFile } from "../../../src/models/t5_single_file.ts";
import { T5EncoderModel } from "../../../src/models/t5.ts";
import { openWeights } from "../../../src/quantization/weights.ts";
import { memorySource } from "../../../src/runtime/byte_source.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import type { Shape } from "../../../src/tensor/shape.ts";
import { randomValues, tensorOf } from "../../quantization/support.ts";
import type { FuzzTarget } from "../target.ts";
import type { StoredCheckpoint, StoredTensor } from "./checkpoints.ts";
import { mutateCheckpoint } from "./mutate_checkpoint.ts";
import { readWeight } from "./read_weight.ts";

/** Float8 matrices with a scale for all rows, for each row, or without one, as ComfyUI saves them. */
export const FLUX_MODEL_TARGET: FuzzTarget<StoredCheckpoint> = modelTarget({
  model: "flux",
  slowness: 8,
  tensors: [
    stored("img_in.weight", [256, 4]),
    stored("txt_in.weight", [2, 6]),
    stored("vector_in.in_layer.weight", [2, 5]),
    stored("guidance_in.in_layer.weight", [2, 2]),
    stored("final_layer.linear.weight", [4, 2]),
    ...scaled("final_layer.adaLN_modulation.1", [4, 2], "scale_weight", [4, 1]),
    ...scaled("double_blocks.0.img_attn.qkv", [6, 2], "scale_weight", []),
    ...scaled("double_blocks.0.txt_attn.qkv", [6, 2], "weight_scale", [6, 1]),
    ...scaled("double_blocks.0.img_mlp.0", [4, 2]),
    stored("double_blocks.0.img_attn.norm.query_norm.scale", [128]),
    ...scaled("single_blocks.0.linear1", [14, 2], "scale_weight", [1]),
    stored("single_blocks.0.linear1.scale_input", []),
    stored("scaled_fp8", [2]),
  ],
  from: fluxFromSingleFile,
  configOf: fluxConfigOf,
  create: (config) => new FluxTransformer2DModel(config),
});

/** The encoder of T5 under llama.cpp's names. */
export const T5_MODEL_TARGET: FuzzTarget<StoredCheckpoint> = modelTarget({
  model: "t5",
  slowness: 4,
  tensors: [
    stored("token_embd.weight", [6, 4]),
    stored("enc.output_norm.weight", [4]),
    stored("enc.blk.0.attn_rel_b.weight", [8, 2]),
    ...["attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down"].map((part) =>
      stored(`enc.blk.0.${part}.weight`, [4, 4])
    ),
    ...scaled("enc.blk.1.attn_q", [4, 4]),
  ],
  from: t5FromSingleFile,
  configOf: t5ConfigOf,
  create: (config) => new T5EncoderModel(config),
});

interface ModelFile {
  readonly model: string;
  readonly slowness: number;
  readonly tensors: readonly StoredTensor[];
  from(checkpoint: Checkpoint): Checkpoint;
  configOf(checkpoint: Checkpoint): Config;
  create(config: Config): PretrainedModel;
}

function stored(name: string, shape: Shape, dtype: StoredTensor["dtype"] = "float32") {
  const count = shape.reduce((product, size) => product * size, 1);
  const { bytes } = tensorOf(randomValues(count, name.length), [...shape]).cast(dtype);
  return { name, dtype, shape, bytes };
}

function scaled(module: string, shape: Shape, scale?: string, scaleShape: Shape = []) {
  const weight = stored(`${module}.weight`, shape, "float8_e4m3fn");
  return scale === undefined ? [weight] : [weight, stored(`${module}.${scale}`, scaleShape)];
}

function modelTarget(
  { model, slowness, tensors, ...names }: ModelFile,
): FuzzTarget<StoredCheckpoint> {
  return {
    name: `model file of ${model}`,
    slowness,
    make: (random) => mutateCheckpoint(random, { tensors, metadata: {} }),
    size: ({ tensors }) => tensors.reduce((sum, { bytes }) => sum + bytes.length, 2 ** 16),
    run: async (stored) => {
      const checkpoint = names.from(await checkpointOf(stored));
      const config = names.configOf(checkpoint);
      const opened = names.create(config);
      const linearNames = (name: string) => opened.isLinearWeight(name);
      const weights = await openWeights(checkpoint, { config, linearNames, onWarning: () => {} });
      weights.memory();
      for (const name of checkpoint.entries.keys()) await readWeight(name, weights);
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
