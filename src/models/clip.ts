/**
 * CLIPTextModel: the text encoder of FLUX.1's first prompt, of which Flux uses the pooled vector
 * alone: the state of the last token the prompt itself has.
 *
 * After Transformers, src/transformers/models/clip/modeling_clip.py.
 */

import type { Graph, Tensor } from "../ops/graph.ts";
import { add, attention, embedding } from "../ops/builders.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { type Config, configNumber, configString, invalidConfig } from "../io/config.ts";
import { CONFIG_LIMITS, configCount } from "./config_limits.ts";
import { activationByName, layerNormLayer, linearLayer } from "./layers.ts";
import { classOf, CLIP_TEXT_CLASSES } from "./module_classes.ts";

/** config.json of CLIPTextModel with the class defaults applied. */
export interface ClipTextConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly maxPositionEmbeddings: number;
  readonly hiddenAct: string;
  readonly layerNormEps: number;
  readonly eosTokenId: number;
}

/** Configs written before Transformers 4.31 say 2 and mean "the highest id". */
const LEGACY_EOS = 2;

/** The text half of CLIP, for any config. */
export class CLIPTextModel {
  /** The parsed config.json. */
  readonly config: ClipTextConfig;
  readonly #activation: (x: Tensor) => Tensor;

  /** Takes the content of config.json (or one with a `text_config`); throws `invalid_config`. */
  constructor(config: Config) {
    this.config = parseClipTextConfig(config);
    this.#activation = activationByName(this.config.hiddenAct, "hidden_act");
  }

  /** The Python class of a module. */
  classOfModule(module: string): string | undefined {
    return classOf(CLIP_TEXT_CLASSES, module);
  }

  /** Whether a checkpoint tensor is the weight of a linear layer. */
  isLinearWeight(name: string): boolean {
    return /\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])\.weight$/.test(name) ||
      name === "text_projection.weight";
  }

  /** Input: ids int32 [tokens]. Output: states [tokens, hidden size]. */
  captureEncode(graph: Graph, sizes: { readonly tokens: number }): void {
    const { hiddenSize, vocabSize, maxPositionEmbeddings, numHiddenLayers } = this.config;
    const prefix = weightPrefix(graph);
    const table = (part: string, entries: number) =>
      graph.weight(`${prefix}embeddings.${part}_embedding.weight`, [entries, hiddenSize]);
    const ids = graph.input("ids", [sizes.tokens], "int32");
    const positions = graph.constant(HostTensor.fromInt32(ascending(sizes.tokens)));
    let x = add(
      embedding(ids, table("token", vocabSize)),
      embedding(positions, table("position", maxPositionEmbeddings)),
    ); // [tokens, hidden]
    for (let layer = 0; layer < numHiddenLayers; layer++) {
      x = this.#layer(graph, x, `${prefix}encoder.layers.${layer}`);
    }
    const { layerNormEps } = this.config;
    graph.output("states", layerNormLayer(graph, x, `${prefix}final_layer_norm`, layerNormEps));
  }

  #layer(graph: Graph, x: Tensor, name: string): Tensor {
    const { hiddenSize, intermediateSize, layerNormEps, numAttentionHeads: heads } = this.config;
    const normed = layerNormLayer(graph, x, `${name}.layer_norm1`, layerNormEps);
    const project = (part: string): Tensor =>
      linearLayer(graph, normed, `${name}.self_attn.${part}_proj`, hiddenSize);
    const scale = 1 / Math.sqrt(hiddenSize / heads);
    const attended = attention(project("q"), project("k"), project("v"), {
      heads,
      scale,
      causal: true,
    });
    x = add(x, linearLayer(graph, attended, `${name}.self_attn.out_proj`, hiddenSize));
    const h = layerNormLayer(graph, x, `${name}.layer_norm2`, layerNormEps);
    const hidden = this.#activation(linearLayer(graph, h, `${name}.mlp.fc1`, intermediateSize));
    return add(x, linearLayer(graph, hidden, `${name}.mlp.fc2`, hiddenSize));
  }

  /**
   * The row of `states` that is the pooled output: the first end-of-text token, which a config with
   * the legacy eos id 2 takes to be the highest id there is. Row 0 when there is none.
   */
  pooledRow(ids: Int32Array): number {
    const { eosTokenId } = this.config;
    const wanted = eosTokenId === LEGACY_EOS ? ids.reduce((a, b) => Math.max(a, b)) : eosTokenId;
    return Math.max(0, ids.indexOf(wanted));
  }
}

function ascending(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, index) => index);
}

/** Transformers wrote "text_model." until version 5, which drops it. */
function weightPrefix(graph: Graph): string {
  const prefix = "text_model.";
  return graph.has("embeddings.token_embedding.weight") ? "" : prefix;
}

function parseClipTextConfig(whole: Config): ClipTextConfig {
  const nested = whole.text_config;
  const config = typeof nested === "object" && nested !== null ? nested as Config : whole;
  const { layers, heads, features, vocabulary, tokens } = CONFIG_LIMITS;
  const parsed = {
    vocabSize: configCount(config, "vocab_size", 49408, vocabulary),
    hiddenSize: configCount(config, "hidden_size", 512, features),
    intermediateSize: configCount(config, "intermediate_size", 2048, features),
    numHiddenLayers: configCount(config, "num_hidden_layers", 12, layers),
    numAttentionHeads: configCount(config, "num_attention_heads", 8, heads),
    maxPositionEmbeddings: configCount(config, "max_position_embeddings", 77, tokens),
    hiddenAct: configString(config, "hidden_act", { default: "quick_gelu" }),
    layerNormEps: configNumber(config, "layer_norm_eps", {
      default: 1e-5,
      min: Number.MIN_VALUE,
      integer: false,
    }),
    eosTokenId: configCount(config, "eos_token_id", 49407, vocabulary, 0),
  };
  if (parsed.hiddenSize % parsed.numAttentionHeads !== 0) {
    const expected = `a multiple of num_attention_heads ${parsed.numAttentionHeads}`;
    throw invalidConfig("hidden_size", parsed.hiddenSize, expected);
  }
  return parsed;
}
