/**
 * T5EncoderModel: the text encoder of FLUX.1's second prompt. Attention has a learned bias by
 * distance instead of position embeddings and no scale; padding is attended like text.
 *
 * After Transformers, src/transformers/models/t5/modeling_t5.py.
 */

import type { Graph, Tensor } from "../ops/graph.ts";
import { add, attention, contiguous, embedding, multiply, rmsNorm } from "../ops/builders.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { log } from "../tensor/math.ts";
import type { Checkpoint } from "../io/checkpoint.ts";
import { type Config, configNumber, configString } from "../io/config.ts";
import { CONFIG_LIMITS, configCount } from "./config_limits.ts";
import { activationByName, projection } from "./layers.ts";
import {
  type FromSingleFileOptions,
  PretrainedModel,
  type SingleFileClass,
} from "./pretrained_model.ts";
import { t5ConfigOf } from "./single_file_config.ts";
import { t5FromSingleFile } from "./t5_single_file.ts";
import { classOf, T5_ENCODER_CLASSES } from "./module_classes.ts";

/** config.json of T5EncoderModel with the class defaults applied. */
export interface T5Config {
  /** Rows of the embedding. */
  readonly vocabSize: number;
  /** Features of a token. */
  readonly dModel: number;
  /** Features per head. */
  readonly dKv: number;
  /** Features inside the feed-forward layers. */
  readonly dFf: number;
  /** Layers of the encoder. */
  readonly numLayers: number;
  /** Attention heads. */
  readonly numHeads: number;
  /** Distances that the attention bias tells apart. */
  readonly relativeAttentionNumBuckets: number;
  /** From here on all distances are one. */
  readonly relativeAttentionMaxDistance: number;
  /** Added to the variance. */
  readonly layerNormEpsilon: number;
  /** Name of the activation, from `feed_forward_proj`. */
  readonly denseActFn: string;
  /** Whether the activation gates a second projection, from `feed_forward_proj`. */
  readonly isGatedAct: boolean;
}

/**
 * The encoder of T5 and T5 v1.1, for any config.
 *
 * ```ts
 * await using textEncoder2 = await T5EncoderModel.fromSingleFile("t5-v1_1-xxl-encoder-Q5_K_M.gguf");
 * await using pipe = await FluxPipeline.fromPretrained("black-forest-labs/FLUX.1-dev", { textEncoder2 });
 * ```
 */
export class T5EncoderModel extends PretrainedModel {
  /** The parsed config.json. */
  readonly config: T5Config;
  /**
   * Modules whose range float16 lacks; Transformers keeps them in float32.
   * @internal
   */
  override readonly keepInFloat32: readonly string[] = ["wo"];
  readonly #activation: (x: Tensor) => Tensor;

  /**
   * Opens a GGUF or safetensors file with the weights under llama.cpp's or Transformers' names. Reads
   * headers, no weight. Throws `missing_file`, `missing_tensor` for another model, `invalid_config`, and
   * what a damaged file gives.
   */
  static fromSingleFile(
    file: string,
    options: FromSingleFileOptions = {},
  ): Promise<T5EncoderModel> {
    return PretrainedModel.openSingleFile(file, SINGLE_FILE, options);
  }

  /** Takes the content of config.json; throws `invalid_config`. */
  constructor(config: Config) {
    super();
    this.config = parseT5Config(config);
    this.#activation = activationByName(this.config.denseActFn, "feed_forward_proj");
  }

  /** Features of an encoded token. */
  get hiddenSize(): number {
    return this.config.dModel;
  }

  /**
   * The Python class of a module.
   * @internal
   */
  override classOfModule(module: string): string | undefined {
    return classOf(T5_ENCODER_CLASSES, module);
  }

  /**
   * Whether a checkpoint tensor is the weight of a linear layer.
   * @internal
   */
  override isLinearWeight(name: string): boolean {
    return /\.(SelfAttention\.[qkvo]|DenseReluDense\.(wi|wi_0|wi_1|wo))\.weight$/.test(name);
  }

  /**
   * A checkpoint under Transformers' names, also when it has those of llama.cpp.
   * @internal
   */
  adaptCheckpoint(checkpoint: Checkpoint): Checkpoint {
    return t5FromSingleFile(checkpoint);
  }

  /**
   * Input: ids int32 [tokens]. Output: states [tokens, hiddenSize].
   * @internal
   */
  captureEncode(graph: Graph, sizes: { readonly tokens: number }): void {
    const { dModel, vocabSize, numLayers } = this.config;
    const ids = graph.input("ids", [sizes.tokens], "int32");
    const table = graph.weight(embeddingName(graph), [vocabSize, dModel]);
    const bias = this.#positionBias(graph, sizes.tokens); // [heads, tokens, tokens]
    let x = embedding(ids, table); // [tokens, d_model]
    for (let block = 0; block < numLayers; block++) {
      x = this.#attentionLayer(graph, x, `encoder.block.${block}.layer.0`, bias);
      x = this.#feedForwardLayer(graph, x, `encoder.block.${block}.layer.1`);
    }
    graph.output("states", this.#norm(graph, x, "encoder.final_layer_norm"));
  }

  #attentionLayer(graph: Graph, x: Tensor, name: string, bias: Tensor): Tensor {
    const { numHeads: heads, dKv, dModel } = this.config;
    const h = this.#norm(graph, x, `${name}.layer_norm`);
    const project = (part: string): Tensor =>
      projection(graph, h, `${name}.SelfAttention.${part}`, heads * dKv);
    const attended = attention(project("q"), project("k"), project("v"), { heads, scale: 1, bias });
    return add(x, projection(graph, attended, `${name}.SelfAttention.o`, dModel));
  }

  #feedForwardLayer(graph: Graph, x: Tensor, name: string): Tensor {
    const { dFf, dModel, isGatedAct } = this.config;
    const h = this.#norm(graph, x, `${name}.layer_norm`);
    const project = (part: string): Tensor =>
      projection(graph, h, `${name}.DenseReluDense.${part}`, dFf);
    const hidden = isGatedAct
      ? multiply(this.#activation(project("wi_0")), project("wi_1"))
      : this.#activation(project("wi"));
    return add(x, projection(graph, hidden, `${name}.DenseReluDense.wo`, dModel));
  }

  #norm(graph: Graph, x: Tensor, name: string): Tensor {
    const weight = graph.weight(`${name}.weight`, [this.config.dModel]);
    return rmsNorm(x, { epsilon: this.config.layerNormEpsilon, weight });
  }

  /** The first block's table by distance, shared by all blocks: [heads, tokens, tokens]. */
  #positionBias(graph: Graph, tokens: number): Tensor {
    const { numHeads, relativeAttentionNumBuckets: buckets } = this.config;
    const name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    const table = graph.weight(name, [buckets, numHeads]);
    const ids = graph.constant(HostTensor.fromInt32(this.#bucketIds(tokens)));
    const byPair = embedding(ids, table).reshape([tokens, tokens, numHeads]);
    return contiguous(byPair.permute([2, 0, 1]));
  }

  /** The bucket of every (query, key) pair, row by row. */
  #bucketIds(tokens: number): Int32Array {
    const { relativeAttentionNumBuckets, relativeAttentionMaxDistance } = this.config;
    const byDelta = Int32Array.from(
      { length: 2 * tokens - 1 },
      (_, index) =>
        relativePositionBucket(
          index - (tokens - 1),
          relativeAttentionNumBuckets,
          relativeAttentionMaxDistance,
        ),
    );
    const ids = new Int32Array(tokens * tokens);
    for (let query = 0; query < tokens; query++) {
      const start = tokens - 1 - query;
      ids.set(byDelta.subarray(start, start + tokens), query * tokens);
    }
    return ids;
  }
}

const SINGLE_FILE: SingleFileClass<T5EncoderModel> = {
  create: (config) => new T5EncoderModel(config),
  adapt: t5FromSingleFile,
  configOf: t5ConfigOf,
};

/**
 * The bucket of delta = key - query: half of the buckets for keys ahead; in each half one bucket per
 * near distance, then buckets that widen logarithmically up to `maxDistance`.
 */
export function relativePositionBucket(
  delta: number,
  buckets: number,
  maxDistance: number,
): number {
  const perSide = Math.floor(buckets / 2);
  const side = delta > 0 ? perSide : 0;
  const distance = Math.abs(delta);
  const exact = Math.floor(perSide / 2);
  if (distance < exact) return side + distance;
  return side + Math.min(perSide - 1, exact + logBucket(distance, exact, perSide, maxDistance));
}

/** PyTorch evaluates this in float32, and 2 ^ k distances sit on its edges: round as it does. */
function logBucket(distance: number, exact: number, perSide: number, maxDistance: number): number {
  const ratio = Math.fround(log(Math.fround(distance / exact)));
  const scaled = Math.fround(ratio / Math.fround(log(maxDistance / exact)));
  return Math.trunc(Math.fround(scaled * (perSide - exact)));
}

/** Checkpoints store the embedding as "shared" and may repeat it, or store the alias alone. */
function embeddingName(graph: Graph): string {
  const alias = "encoder.embed_tokens.weight";
  return !graph.has("shared.weight") && graph.has(alias) ? alias : "shared.weight";
}

function parseT5Config(config: Config): T5Config {
  const { layers, heads, features, vocabulary } = CONFIG_LIMITS;
  const feedForward = configString(config, "feed_forward_proj", { default: "relu" }).split("-");
  const act = feedForward[feedForward.length - 1];
  const isGatedAct = feedForward.length > 1 && feedForward[0] === "gated";
  return {
    vocabSize: configCount(config, "vocab_size", 32128, vocabulary),
    dModel: configCount(config, "d_model", 512, features),
    dKv: configCount(config, "d_kv", 64, features),
    dFf: configCount(config, "d_ff", 2048, features),
    numLayers: configCount(config, "num_layers", 6, layers),
    numHeads: configCount(config, "num_heads", 8, heads),
    relativeAttentionNumBuckets: configCount(
      config,
      "relative_attention_num_buckets",
      32,
      1 << 16,
      4,
    ),
    relativeAttentionMaxDistance: configCount(
      config,
      "relative_attention_max_distance",
      128,
      1 << 20,
    ),
    layerNormEpsilon: configNumber(config, "layer_norm_epsilon", {
      default: 1e-6,
      min: Number.MIN_VALUE,
      integer: false,
    }),
    denseActFn: isGatedAct && act === "gelu" ? "gelu_new" : act,
    isGatedAct,
  };
}
