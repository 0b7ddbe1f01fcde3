/**
 * FluxTransformer2DModel: the velocity field of FLUX.1, a transformer over text and image tokens.
 * Double blocks keep separate weights for text and image and attend jointly; single blocks treat
 * the joint sequence alike. Every block is modulated by the timestep and the pooled prompt.
 *
 * After Diffusers, src/diffusers/models/transformers/transformer_flux.py.
 */

import type { Checkpoint } from "../io/checkpoint.ts";
import type { Config } from "../io/config.ts";
import { isRowWise } from "../ops/activation_mode.ts";
import type { Graph, Tensor } from "../ops/graph.ts";
import type { OpAttributes } from "../ops/op_table.ts";
import {
  add,
  attention,
  concat,
  geluTanh,
  headNormRope,
  layerNorm,
  modulate,
  multiply,
  silu,
} from "../ops/builders.ts";
import { linearLayer } from "./layers.ts";
import {
  type FluxTransformerConfig,
  parseFluxTransformerConfig,
} from "./flux_transformer_config.ts";
import { ModulationLayout } from "./flux_modulation.ts";
import { fluxFromSingleFile, fluxToSingleFile } from "./flux_single_file.ts";
import {
  type FromSingleFileOptions,
  PretrainedModel,
  type SingleFileClass,
} from "./pretrained_model.ts";
import { fluxPositions, type Position, ropeTables } from "./rope.ts";
import { fluxConfigOf } from "./single_file_config.ts";
import { TIMESTEP_CHANNELS } from "./timestep_embedding.ts";
import { classOf, FLUX_TRANSFORMER_CLASSES, fluxLayerNorms } from "./module_classes.ts";

export type { FluxTransformerConfig } from "./flux_transformer_config.ts";

const EPSILON = 1e-6;
const MLP_RATIO = 4;

/** The size of one denoising step. */
export interface DenoiseSizes {
  /** Image tokens down. */
  readonly height: number;
  /** Image tokens across. */
  readonly width: number;
  /** Text tokens. */
  readonly textTokens: number;
  /** Coordinates of all tokens, text first; by default text at the origin and image (0, y, x). */
  readonly positions?: readonly Position[];
}

/** The rotation and the modulation that all blocks of one forward share. */
interface Conditioning {
  readonly modulation: Tensor; // [1, total]
  readonly cos: Tensor; // [tokens, head dim]
  readonly sin: Tensor; // [tokens, head dim]
  readonly qkDtype: QkDType;
}

type QkDType = OpAttributes["attention"]["qkDtype"];

/**
 * The transformer of FLUX.1, for any config.
 *
 * ```ts
 * await using transformer = await FluxTransformer2DModel.fromSingleFile("flux1-dev-Q4_K_S.gguf");
 * await using pipe = await FluxPipeline.fromPretrained("black-forest-labs/FLUX.1-dev", { transformer });
 * ```
 */
export class FluxTransformer2DModel extends PretrainedModel {
  /** The parsed config.json. */
  readonly config: FluxTransformerConfig;
  /**
   * The class's _skip_layerwise_casting_patterns.
   * @internal
   */
  override readonly skipLayerwiseCastingPatterns: readonly string[] = ["pos_embed", "norm"];
  /**
   * The embedders, the last modulation and the last projection: 0.5 % of FLUX.1's weights, through which every
   * pixel passes.
   * @internal
   */
  override readonly outerModules: readonly string[] = [
    "x_embedder",
    "context_embedder",
    "time_text_embed",
    "norm_out",
    "proj_out",
  ];
  readonly #layout: ModulationLayout;

  /**
   * Opens a GGUF or safetensors file with the weights under Black Forest Labs' or Diffusers' names:
   * dense, in GGUF's types, in float8 with or without scales, or as any method stores them. Reads headers,
   * no weight. Throws `missing_file`, `missing_tensor` for another model, `invalid_config`, and what a
   * damaged file gives.
   */
  static fromSingleFile(
    file: string,
    options: FromSingleFileOptions = {},
  ): Promise<FluxTransformer2DModel> {
    return PretrainedModel.openSingleFile(file, SINGLE_FILE, options);
  }

  /** Takes the content of config.json; throws `invalid_config`. */
  constructor(config: Config) {
    super();
    this.config = parseFluxTransformerConfig(config);
    this.#layout = new ModulationLayout(this.config);
  }

  /** Features per token inside the model. */
  get innerDim(): number {
    return this.config.numAttentionHeads * this.config.attentionHeadDim;
  }

  /** Columns of the modulation matrix. */
  get modulationColumns(): number {
    return this.#layout.columns;
  }

  /**
   * The Python class of a module.
   * @internal
   */
  override classOfModule(module: string): string | undefined {
    if (module !== "time_text_embed") return classOf(FLUX_TRANSFORMER_CLASSES, module);
    return `CombinedTimestep${this.config.guidanceEmbeds ? "Guidance" : ""}TextProjEmbeddings`;
  }

  /**
   * Its LayerNorms, from the names of its tensors.
   * @internal
   */
  override layerNorms(tensors: Iterable<string>): readonly string[] {
    return fluxLayerNorms(tensors);
  }

  /**
   * Whether a checkpoint tensor is the weight of a linear layer.
   * @internal
   */
  override isLinearWeight(name: string): boolean {
    return name.endsWith(".weight") && !/\.norm_(added_)?[qk]\.weight$/.test(name);
  }

  /**
   * Whether a linear layer, by the name of its weight, is one of attention or an MLP in a block: what makes
   * modulation and embeds inputs is none.
   * @internal
   */
  override isTokenLayer(name: string): boolean {
    return /^(single_)?transformer_blocks\.\d+\.(?!norm)/.test(name) && this.isLinearWeight(name);
  }

  /**
   * A checkpoint under Diffusers' names, also when it has those of single files.
   * @internal
   */
  adaptCheckpoint(checkpoint: Checkpoint): Checkpoint {
    return fluxFromSingleFile(checkpoint);
  }

  /**
   * A checkpoint under Black Forest Labs' names.
   * @internal
   */
  override asSingleFile(checkpoint: Checkpoint): Checkpoint {
    return fluxToSingleFile(checkpoint);
  }

  /**
   * Every modulation vector of every step at once: they depend on time and pooled prompt alone, so
   * more than a quarter of FLUX.1's weights can leave memory before step 1.
   * Inputs: timestep [steps, 256] and guidance [1, 256] sinusoids, pooled [1, pooled features].
   * Output: modulation [steps, modulationColumns].
   * @internal
   */
  captureModulation(graph: Graph, sizes: { readonly steps: number }): void {
    const embedding = silu(this.#timeTextEmbedding(graph, sizes.steps)); // [steps, dim]
    const vectors = this.#layout.layers.map((layer) =>
      linearPerStep(graph, embedding, `${layer.name}.linear`, layer.chunks * this.innerDim)
    );
    graph.output("modulation", concat(vectors, 1));
  }

  #timeTextEmbedding(graph: Graph, steps: number): Tensor {
    const { guidanceEmbeds, pooledProjectionDim } = this.config;
    const embed = (x: Tensor, name: string): Tensor =>
      timeMlp(graph, x, `time_text_embed.${name}`, this.innerDim);
    let embedding = embed(graph.input("timestep", [steps, TIMESTEP_CHANNELS]), "timestep_embedder");
    if (guidanceEmbeds) {
      const guidance = graph.input("guidance", [1, TIMESTEP_CHANNELS]);
      embedding = add(embedding, embed(guidance, "guidance_embedder"));
    }
    return add(embedding, embed(graph.input("pooled", [1, pooledProjectionDim]), "text_embedder"));
  }

  /**
   * One evaluation of the velocity. Inputs: latents [image tokens, in channels],
   * text [text tokens, joint features], modulation [1, modulationColumns] (a row of
   * `captureModulation`). Output: velocity [image tokens, out channels]. `qkDtype` "int8" rounds the queries and
   * keys of every attention.
   * @internal
   */
  captureDenoise(
    graph: Graph,
    sizes: DenoiseSizes,
    { qkDtype }: { readonly qkDtype?: QkDType } = {},
  ): void {
    const { config, innerDim } = this;
    const imageTokens = sizes.height * sizes.width;
    const latents = graph.input("latents", [imageTokens, config.inChannels]);
    const states = graph.input("text", [sizes.textTokens, config.jointAttentionDim]);
    const conditioning = { ...this.#conditioning(graph, sizes), qkDtype };

    let image = linearLayer(graph, latents, "x_embedder", innerDim); // [image tokens, dim]
    let text = linearLayer(graph, states, "context_embedder", innerDim); // [text tokens, dim]
    for (let block = 0; block < config.numLayers; block++) {
      [text, image] = this.#doubleBlock(graph, block, text, image, conditioning);
    }
    let joint = concat([text, image], 0); // [tokens, dim]
    for (let block = 0; block < config.numSingleLayers; block++) {
      joint = this.#singleBlock(graph, block, joint, conditioning);
    }
    image = joint.slice(0, sizes.textTokens, sizes.textTokens + imageTokens);

    const [scale, shift] = this.#layout.chunks(conditioning.modulation, "norm_out");
    const normed = modulate(layerNorm(image, { epsilon: EPSILON }), scale, shift);
    graph.output("velocity", linearLayer(graph, normed, "proj_out", config.outChannels));
  }

  #conditioning(graph: Graph, sizes: DenoiseSizes): Omit<Conditioning, "qkDtype"> {
    const positions = sizes.positions ??
      fluxPositions(sizes.textTokens, sizes.height, sizes.width);
    const tables = ropeTables(positions, this.config.axesDimsRope);
    return {
      modulation: graph.input("modulation", [1, this.modulationColumns]),
      cos: graph.constant(tables.cos),
      sin: graph.constant(tables.sin),
    };
  }

  #doubleBlock(
    graph: Graph,
    index: number,
    text: Tensor,
    image: Tensor,
    conditioning: Conditioning,
  ): [text: Tensor, image: Tensor] {
    const name = `transformer_blocks.${index}`;
    const forImage = this.#layout.chunks(conditioning.modulation, `${name}.norm1`);
    const forText = this.#layout.chunks(conditioning.modulation, `${name}.norm1_context`);
    const attended = this.#jointAttention(
      graph,
      `${name}.attn`,
      modulate(layerNorm(text, { epsilon: EPSILON }), forText[1], forText[0]),
      modulate(layerNorm(image, { epsilon: EPSILON }), forImage[1], forImage[0]),
      conditioning,
    );
    const textTokens = text.shape[0];
    const textAttended = attended.slice(0, 0, textTokens);
    const imageAttended = attended.slice(0, textTokens, attended.shape[0]);
    const finish = (x: Tensor, attended: Tensor, chunks: readonly Tensor[], names: string[]) =>
      this.#finishStream(graph, x, attended, chunks, names.map((part) => `${name}.${part}`));
    return [
      finish(text, textAttended, forText, ["attn.to_add_out", "ff_context"]),
      finish(image, imageAttended, forImage, ["attn.to_out.0", "ff"]),
    ];
  }

  /** Attention over text and image together, each stream with its own projections and norms. */
  #jointAttention(
    graph: Graph,
    name: string,
    text: Tensor,
    image: Tensor,
    conditioning: Conditioning,
  ): Tensor {
    const split = text.shape[0];
    const tokens = split + image.shape[0];
    const project = (x: Tensor, part: string): Tensor =>
      linearLayer(graph, x, `${name}.${part}`, this.innerDim);
    const rotate = (x: Tensor, part: string, start: number, end: number): Tensor =>
      this.#normRope(graph, x, `${name}.${part}`, {
        ...conditioning,
        cos: conditioning.cos.slice(0, start, end),
        sin: conditioning.sin.slice(0, start, end),
      });
    const q = concat([
      rotate(project(text, "add_q_proj"), "norm_added_q", 0, split),
      rotate(project(image, "to_q"), "norm_q", split, tokens),
    ], 0); // [tokens, dim]
    const k = concat([
      rotate(project(text, "add_k_proj"), "norm_added_k", 0, split),
      rotate(project(image, "to_k"), "norm_k", split, tokens),
    ], 0);
    const v = concat([project(text, "add_v_proj"), project(image, "to_v")], 0);
    return this.#attention(q, k, v, conditioning);
  }

  /** The gated residuals of one stream of a double block: attention output, then the MLP. */
  #finishStream(
    graph: Graph,
    x: Tensor,
    attended: Tensor,
    chunks: readonly Tensor[],
    [attentionOut, mlp]: string[],
  ): Tensor {
    const [, , gateAttention, shiftMlp, scaleMlp, gateMlp] = chunks;
    const dim = this.innerDim;
    const afterAttention = add(
      x,
      multiply(gateAttention, linearLayer(graph, attended, attentionOut, dim)),
    );
    const h = modulate(layerNorm(afterAttention, { epsilon: EPSILON }), scaleMlp, shiftMlp);
    const hidden = geluTanh(linearLayer(graph, h, `${mlp}.net.0.proj`, MLP_RATIO * dim));
    return add(afterAttention, multiply(gateMlp, linearLayer(graph, hidden, `${mlp}.net.2`, dim)));
  }

  /** Attention and MLP side by side, both from the same modulated norm. */
  #singleBlock(graph: Graph, index: number, x: Tensor, conditioning: Conditioning): Tensor {
    const name = `single_transformer_blocks.${index}`;
    const dim = this.innerDim;
    const [shift, scale, gate] = this.#layout.chunks(conditioning.modulation, `${name}.norm`);
    const h = modulate(layerNorm(x, { epsilon: EPSILON }), scale, shift); // [tokens, dim]
    const project = (part: string): Tensor => linearLayer(graph, h, `${name}.attn.${part}`, dim);
    const attended = this.#attention(
      this.#normRope(graph, project("to_q"), `${name}.attn.norm_q`, conditioning),
      this.#normRope(graph, project("to_k"), `${name}.attn.norm_k`, conditioning),
      project("to_v"),
      conditioning,
    );
    const mlp = geluTanh(linearLayer(graph, h, `${name}.proj_mlp`, MLP_RATIO * dim));
    const joined = concat([attended, mlp], 1); // [tokens, 5 * dim]
    return add(x, multiply(gate, linearLayer(graph, joined, `${name}.proj_out`, dim)));
  }

  #normRope(graph: Graph, x: Tensor, name: string, { cos, sin }: Conditioning): Tensor {
    const { numAttentionHeads: heads, attentionHeadDim } = this.config;
    const weight = graph.weight(`${name}.weight`, [attentionHeadDim]);
    return headNormRope(x, { heads, weight, epsilon: EPSILON, cos, sin });
  }

  #attention(q: Tensor, k: Tensor, v: Tensor, { qkDtype }: Conditioning): Tensor {
    const { numAttentionHeads: heads, attentionHeadDim } = this.config;
    return attention(q, k, v, { heads, scale: 1 / Math.sqrt(attentionHeadDim), qkDtype });
  }
}

const SINGLE_FILE: SingleFileClass<FluxTransformer2DModel> = {
  create: (config) => new FluxTransformer2DModel(config),
  adapt: fluxFromSingleFile,
  configOf: fluxConfigOf,
};

/** Linear, SiLU, Linear: sinusoids or pooled prompt [n, features] -> [n, dim]. */
function timeMlp(graph: Graph, x: Tensor, name: string, dim: number): Tensor {
  const hidden = silu(linearPerStep(graph, x, `${name}.linear_1`, dim));
  return linearPerStep(graph, hidden, `${name}.linear_2`, dim);
}

/**
 * A linear layer over one row per step: [steps, features] -> [steps, outputs]. Where
 * activations are rounded by what is found over all rows (LLM.int8()'s outlier columns, one scale for
 * a whole tensor) each step goes alone, as in Diffusers.
 */
function linearPerStep(graph: Graph, x: Tensor, name: string, outputs: number): Tensor {
  const steps = x.shape[0];
  const weight = graph.weight(`${name}.weight`, [outputs, x.shape[1]]);
  if (steps === 1 || isRowWise(weight.activations)) {
    return linearLayer(graph, x, name, outputs);
  }
  const rows = Array.from(
    { length: steps },
    (_, step) => linearLayer(graph, x.slice(0, step, step + 1), name, outputs),
  );
  return concat(rows, 0);
}
