/**
 * Which type each tensor of a T5 encoder gets in a mix, as llama.cpp's quantize chooses it without an
 * importance matrix: values and the last projections of some layers are widened, the embedding has a
 * type of its own. After llama.cpp, src/llama-quant.cpp.
 */

import type { GgufMix } from "./gguf_mixes.ts";
import type { GgufQuantType } from "./gguf_quantizers.ts";
import { ggufTypeInfo } from "./gguf_types.ts";

/** What the choice depends on besides the mix. */
export interface T5Tensor {
  readonly name: string;
  /** Columns; types whose blocks do not divide them give way to others. */
  readonly columns: number;
  /** Layers of the encoder. */
  readonly layers: number;
}

/** Under llama.cpp's and under Transformers' names. */
const EMBEDDING = /^(token_embd|shared|encoder\.embed_tokens)\.weight$/;
const VALUE =
  /^(?:enc\.blk\.(\d+)\.attn_v|encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.v)\.weight$/;
const DOWN =
  /^(?:enc\.blk\.(\d+)\.ffn_down|encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo)\.weight$/;
const OTHER = /^(?:enc\.blk\.|encoder\.block\.)/;

/** The type of a layer that comes as the `turn`-th of `layers`. */
type ByTurn = (turn: number, layers: number) => GgufQuantType | undefined;

const whole = (a: number, b: number): number => Math.floor(a / b);
const always = (type: GgufQuantType): ByTurn => () => type;

/** The first and the last eighth, and every third layer between. */
const someInQ6K: ByTurn = (turn, layers) => {
  const eighth = whole(layers, 8);
  const isWide = turn < eighth || turn >= whole(7 * layers, 8) || (turn - eighth) % 3 === 2;
  return isWide ? "Q6_K" : undefined;
};
const firstEighthInQ5K: ByTurn = (turn, layers) => turn < whole(layers, 8) ? "Q5_K" : undefined;

const VALUES: Readonly<Partial<Record<GgufMix, ByTurn>>> = {
  Q2_K: always("Q3_K"),
  Q3_K_M: (turn) => turn < 2 ? "Q5_K" : "Q4_K",
  Q3_K_L: always("Q5_K"),
  Q4_K_S: (turn) => turn < 4 ? "Q5_K" : undefined,
  Q4_K_M: someInQ6K,
  Q5_K_M: someInQ6K,
};

const DOWNS: Readonly<Partial<Record<GgufMix, ByTurn>>> = {
  Q2_K: always("Q3_K"),
  Q3_K_M: (turn, layers) => turn < whole(layers, 16) ? "Q5_K" : "Q4_K",
  Q3_K_L: always("Q5_K"),
  Q4_K_S: firstEighthInQ5K,
  Q4_K_M: someInQ6K,
  Q5_K_M: someInQ6K,
  IQ4_NL: firstEighthInQ5K,
  IQ4_XS: firstEighthInQ5K,
};

/** What stands in for blocks of 256 where they do not divide a row. */
const SMALLER_BLOCKS: Readonly<Partial<Record<GgufQuantType, GgufQuantType>>> = {
  Q2_K: "Q4_0",
  Q3_K: "Q4_0",
  Q4_K: "Q5_0",
  Q5_K: "Q5_1",
  Q6_K: "Q8_0",
  IQ4_XS: "IQ4_NL",
};

/** The type of a tensor of T5 in a mix whose other tensors have type `base`; null for another model's. */
export function t5TypeFor(
  mix: GgufMix,
  base: GgufQuantType,
  tensor: T5Tensor,
): GgufQuantType | null {
  const { name, columns } = tensor;
  if (EMBEDDING.test(name)) return fitting(embeddingType(base, columns), columns);
  if (!OTHER.test(name)) return null;
  const wider = widened(VALUE, VALUES[mix], tensor) ?? widened(DOWN, DOWNS[mix], tensor);
  return fitting(wider ?? base, columns);
}

function widened(
  pattern: RegExp,
  rule: ByTurn | undefined,
  { name, layers }: T5Tensor,
): GgufQuantType | undefined {
  const match = pattern.exec(name);
  return match === null ? undefined : rule?.(turnOf(Number(match[1] ?? match[2]), layers), layers);
}

/**
 * llama.cpp counts layers as it comes to them, and takes tensors in the order of their names, where
 * "enc.blk.10" stands before "enc.blk.2".
 */
function turnOf(layer: number, layers: number): number {
  let turn = 0;
  for (let other = 0; other < layers; other++) if (`${other}.` < `${layer}.`) turn++;
  return turn;
}

function embeddingType(base: GgufQuantType, columns: number): GgufQuantType {
  return base === "Q8_0" || !divides(base, columns) ? "Q8_0" : "Q6_K";
}

function fitting(type: GgufQuantType, columns: number): GgufQuantType {
  return divides(type, columns) ? type : SMALLER_BLOCKS[type] ?? type;
}

function divides(type: GgufQuantType, columns: number): boolean {
  return columns % ggufTypeInfo(type).elements === 0;
}
