import assert from "node:assert/strict";
import { test } from "node:test";
import { CLIPTextModel } from "../../src/models/clip.ts";
import { relativePositionBucket, T5EncoderModel } from "../../src/models/t5.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
import {
  GOLDENS,
  loadJson,
  loadTensors,
  relativeError,
  runModel,
  type Tensors,
} from "./run_model.ts";

const CAPTION = "a red star above a blue house on a white background";

interface TokenRecord {
  text: string;
  clip_77: number[];
  t5_16: number[];
}

function tokens(text: string): TokenRecord {
  const records = loadJson(`${GOLDENS}components/tokenizers.json`) as unknown as TokenRecord[];
  return records.find((record) => record.text === text)!;
}

async function encodeT5(model: T5EncoderModel, weights: Tensors, ids: number[]) {
  const { states } = await runModel(
    weights,
    (graph) => model.captureEncode(graph, { tokens: ids.length }),
    { ids: HostTensor.fromInt32(Int32Array.from(ids)) },
  );
  return states.toFloat32();
}

async function poolClip(model: CLIPTextModel, weights: Tensors, ids: number[]) {
  const { states } = await runModel(
    weights,
    (graph) => model.captureEncode(graph, { tokens: ids.length }),
    { ids: HostTensor.fromInt32(Int32Array.from(ids)) },
  );
  const start = model.pooledRow(Int32Array.from(ids)) * model.config.hiddenSize;
  return states.toFloat32().slice(start, start + model.config.hiddenSize);
}

for (const name of ["schnell", "single_blocks_only", "dev", "karras"]) {
  test(`the text encoders of "${name}" give the embeddings of Transformers`, async () => {
    const folder = `${GOLDENS}pipelines/${name}`;
    const golden = loadTensors(`${folder}/golden.safetensors`);
    const record = tokens(CAPTION);
    const t5 = new T5EncoderModel(loadJson(`${folder}/text_encoder_2/config.json`));
    const t5Weights = loadTensors(`${folder}/text_encoder_2/model.safetensors`);
    const states = await encodeT5(t5, t5Weights, record.t5_16);
    assert.ok(relativeError(states, golden.get("prompt_embeds")!.toFloat32()) < 1e-5);
    const clip = new CLIPTextModel(loadJson(`${folder}/text_encoder/config.json`));
    const clipWeights = loadTensors(`${folder}/text_encoder/model.safetensors`);
    const pooled = await poolClip(clip, clipWeights, record.clip_77);
    assert.ok(relativeError(pooled, golden.get("pooled_prompt_embeds")!.toFloat32()) < 1e-5);
  });
}

/** Weights by a recipe that needs no library: one generator, names in order, 0.05 randn, norms + 1. */
function recipeWeights(shapes: Record<string, number[]>): Map<string, HostTensor> {
  const generator = new TorchGenerator(1234);
  return new Map(
    Object.keys(shapes).sort().map((name) => {
      const addend = /norm[12]?\.weight$/.test(name) ? 1 : 0;
      const drawn = generator.randn(shapes[name]).toFloat32();
      const values = drawn.map((x) => Math.fround(x * Math.fround(0.05)) + addend);
      return [name, HostTensor.fromFloat32(values, shapes[name])];
    }),
  );
}

function clipShapes(prefix: string): Record<string, number[]> {
  const shapes: Record<string, number[]> = {
    "embeddings.position_embedding.weight": [77, 32],
    "embeddings.token_embedding.weight": [1000, 32],
    "final_layer_norm.bias": [32],
    "final_layer_norm.weight": [32],
  };
  const layer: Record<string, number[]> = { "mlp.fc1": [37, 32], "mlp.fc2": [32, 37] };
  for (const part of ["q_proj", "k_proj", "v_proj", "out_proj"]) {
    layer[`self_attn.${part}`] = [32, 32];
  }
  for (let i = 0; i < 5; i++) {
    for (const part of ["layer_norm1", "layer_norm2"]) {
      shapes[`encoder.layers.${i}.${part}.weight`] = [32];
      shapes[`encoder.layers.${i}.${part}.bias`] = [32];
    }
    for (const [part, shape] of Object.entries(layer)) {
      shapes[`encoder.layers.${i}.${part}.weight`] = shape;
      shapes[`encoder.layers.${i}.${part}.bias`] = [shape[0]];
    }
  }
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [prefix + name, shape]));
}

const CLIP_CONFIG = {
  hidden_size: 32,
  intermediate_size: 37,
  num_attention_heads: 4,
  num_hidden_layers: 5,
  vocab_size: 1000,
  bos_token_id: 0,
  eos_token_id: 2,
  pad_token_id: 1,
};

const CLIP_IDS = [0, 5, 9, 17, 999, ...new Array<number>(72).fill(1)];

const CLIP_POOLED: Record<string, number[]> = {
  gelu: [2.060519695, .810991347, .846868217, -.998564661],
  quick_gelu: [2.073200226, .806112468, .840769172, -.996640801],
};

for (const [activation, expected] of Object.entries(CLIP_POOLED)) {
  test(`CLIP with ${activation} pools golden values, with or without its key prefix`, async () => {
    const model = new CLIPTextModel({ ...CLIP_CONFIG, hidden_act: activation });
    for (const prefix of ["text_model.", ""]) {
      const pooled = await poolClip(model, recipeWeights(clipShapes(prefix)), CLIP_IDS);
      assertClose(pooled, expected);
    }
  });
}

function t5Shapes(gated: boolean, buckets: number): Record<string, number[]> {
  const shapes: Record<string, number[]> = {
    "shared.weight": [1103, 32],
    "encoder.final_layer_norm.weight": [32],
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": [buckets, 4],
  };
  for (let i = 0; i < 5; i++) {
    const block = `encoder.block.${i}`;
    for (const part of ["q", "k", "v", "o"]) {
      shapes[`${block}.layer.0.SelfAttention.${part}.weight`] = [32, 32];
    }
    shapes[`${block}.layer.0.layer_norm.weight`] = [32];
    for (const part of gated ? ["wi_0", "wi_1"] : ["wi"]) {
      shapes[`${block}.layer.1.DenseReluDense.${part}.weight`] = [37, 32];
    }
    shapes[`${block}.layer.1.DenseReluDense.wo.weight`] = [32, 37];
    shapes[`${block}.layer.1.layer_norm.weight`] = [32];
  }
  return shapes;
}

const T5_CONFIG = { d_model: 32, d_kv: 8, d_ff: 37, num_layers: 5, num_heads: 4, vocab_size: 1103 };
const T5_IDS = [7, 21, 300, 1102, 1, ...new Array<number>(43).fill(0)];

test("T5 with ReLU and 8 buckets gives golden values", async () => {
  const model = new T5EncoderModel({ ...T5_CONFIG, relative_attention_num_buckets: 8 });
  const states = await encodeT5(model, recipeWeights(t5Shapes(false, 8)), T5_IDS);
  assertClose(states, [-1.832856059, -1.313325763, .216732040]);
  assertClose([states.reduce((a, b) => a + b, 0)], [-324.415313048], 1e-3);
});

test("T5 with gated GELU gives golden values, under either name of its embedding", async () => {
  const model = new T5EncoderModel({ ...T5_CONFIG, feed_forward_proj: "gated-gelu" });
  const weights = recipeWeights(t5Shapes(true, 32));
  const states = await encodeT5(model, weights, T5_IDS);
  assertClose(states, [-1.665156364, .252643228, .257897049, .696978688]);
  assertClose([states.reduce((a, b) => a + b, 0)], [417.021044851], 1e-3);
  const aliased = new Map(weights);
  aliased.delete("shared.weight");
  aliased.set("encoder.embed_tokens.weight", weights.get("shared.weight")!);
  assert.deepEqual(await encodeT5(model, aliased, T5_IDS), states);
});

test("distances fall into the buckets of T5", () => {
  const starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
  for (let distance = 0; distance < 600; distance++) {
    const bucket = starts.findLastIndex((start) => start <= distance);
    assert.equal(relativePositionBucket(-distance, 32, 128), bucket);
    assert.equal(relativePositionBucket(distance, 32, 128), distance === 0 ? 0 : 16 + bucket);
  }
});

test("the pooled row is the first end-of-text, or the highest id under the legacy eos id", () => {
  const ids = Int32Array.from([9, 3, 7, 7, 1]);
  assert.equal(new CLIPTextModel({ eos_token_id: 7 }).pooledRow(ids), 2);
  assert.equal(new CLIPTextModel({ eos_token_id: 2 }).pooledRow(ids), 0);
  assert.equal(new CLIPTextModel({ eos_token_id: 50 }).pooledRow(ids), 0);
});

test("linear weights of the text encoders are told by name", () => {
  const clip = new CLIPTextModel(CLIP_CONFIG);
  for (const [name, shape] of Object.entries(clipShapes("text_model."))) {
    const isLinear = shape.length === 2 && !name.includes("embedding");
    assert.equal(clip.isLinearWeight(name), isLinear, name);
  }
  const t5 = new T5EncoderModel(T5_CONFIG);
  for (const [name, shape] of Object.entries(t5Shapes(true, 32))) {
    const isLinear = shape.length === 2 && !/shared|bias/.test(name);
    assert.equal(t5.isLinearWeight(name), isLinear, name);
  }
});

test("absurd text encoder configs are refused with the key at fault", () => {
  const throwsAt = (make: () => unknown, key: string, code = "invalid_config") =>
    assert.throws(
      make,
      (error: { code?: string; message: string }) =>
        error.code === code && error.message.includes(key),
      key,
    );
  throwsAt(() => new T5EncoderModel({ d_model: -1 }), "d_model");
  throwsAt(() => new T5EncoderModel({ num_layers: 1e6 }), "num_layers");
  throwsAt(() => new T5EncoderModel({ layer_norm_epsilon: 0 }), "layer_norm_epsilon");
  throwsAt(
    () => new T5EncoderModel({ feed_forward_proj: "gated-tan" }),
    "feed_forward_proj",
    "unsupported",
  );
  throwsAt(() => new CLIPTextModel({ hidden_size: 33 }), "hidden_size");
  throwsAt(() => new CLIPTextModel({ vocab_size: 2 ** 50 }), "vocab_size");
  throwsAt(() => new CLIPTextModel({ hidden_act: "constructor" }), "hidden_act", "unsupported");
});

function assertClose(found: ArrayLike<number>, expected: readonly number[], tolerance = 1e-5) {
  expected.forEach((value, i) => assert.ok(Math.abs(found[i] - value) < tolerance, `${found[i]}`));
}
