import assert from "node:assert/strict";
import { test } from "node:test";
import { createBackend } from "../../src/backends/select.ts";
import { AutoencoderKL } from "../../src/models/autoencoder_kl.ts";
import { CLIPTextModel } from "../../src/models/clip.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { T5EncoderModel } from "../../src/models/t5.ts";
import { Graph, Weight } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan, WeightArrangement } from "../../src/plan/plan.ts";
import { elementCount, type Shape } from "../../src/tensor/shape.ts";

/** A capture over a checkpoint that holds whatever the model asks for, as bfloat16. */
class OpenGraph extends Graph {
  readonly asked = new Map<string, Weight>();

  constructor() {
    super("open", { lookup: () => undefined });
  }

  override weight(name: string, expected: Shape, arrangement: WeightArrangement = "rows"): Weight {
    const dtype = expected.length === 2 ? "bfloat16" : "float32";
    const [out, channels, height, width] = expected;
    const shape = arrangement === "rows" ? expected : [out, height, width, channels];
    const format = { kind: "dense", dtype } as const;
    const weight = this.asked.get(name) ??
      new Weight(name, shape, format, arrangement, { kind: "float" });
    this.asked.set(name, weight);
    return weight;
  }
}

interface Captured {
  plan: Plan;
  /** Names of the weights, and numbers in all of them. */
  names: Set<string>;
  parameters: number;
}

function capture(forward: (graph: Graph) => void): Captured {
  const graph = new OpenGraph();
  forward(graph);
  const parameters = [...graph.asked.values()]
    .reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const names = new Set(graph.asked.keys());
  return { plan: buildPlan(graph, { supports: () => true }), names, parameters };
}

function opCounts({ steps }: Plan): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { op } of steps) counts[op] = (counts[op] ?? 0) + 1;
  return counts;
}

for (
  const [variant, parameters, tensors] of [
    ["dev", 11_901_408_320, 1160],
    ["schnell", 11_891_178_560, 1156],
  ] as const
) {
  test(`the transformer of FLUX.1-${variant} asks for the published parameters`, () => {
    const model = new FluxTransformer2DModel({ guidance_embeds: variant === "dev" });
    const modulation = capture((graph) => model.captureModulation(graph, { steps: 28 }));
    const sizes = { height: 16, width: 16, textTokens: 512 };
    const denoise = capture((graph) => model.captureDenoise(graph, sizes));
    assert.equal(modulation.parameters + denoise.parameters, parameters);
    assert.equal(modulation.names.size + denoise.names.size, tensors);
    assert.equal(model.modulationColumns, (19 * 12 + 38 * 3 + 2) * 3072);
  });
}

test("a step of FLUX.1 is four kinds of fused ops, one per layer of the paper", () => {
  const model = new FluxTransformer2DModel({ guidance_embeds: true });
  const sizes = { height: 64, width: 64, textTokens: 512 };
  const { plan } = capture((graph) => model.captureDenoise(graph, sizes));
  assert.deepEqual(opCounts(plan), {
    linear: 3 + 19 * 12 + 38 * 5,
    norm: 19 * 4 + 38 + 1,
    headNormRope: 19 * 4 + 38 * 2,
    attention: 19 + 38,
  });
  // Three times the widest activation, [4608, 15360] float32, is more than enough.
  assert.ok(plan.arenaBytes < 3 * 4608 * 15360 * 4, `${plan.arenaBytes}`);
});

test("T5 v1.1 XXL asks for the published parameters and lays its position bias out once", () => {
  const model = new T5EncoderModel({
    d_model: 4096,
    d_kv: 64,
    num_heads: 64,
    d_ff: 10240,
    num_layers: 24,
    feed_forward_proj: "gated-gelu",
  });
  const { plan, parameters } = capture((graph) => model.captureEncode(graph, { tokens: 512 }));
  assert.equal(parameters, 4_762_310_656);
  const { copy, attention, linear } = opCounts(plan);
  assert.deepEqual({ copy, attention, linear }, { copy: 1, attention: 24, linear: 24 * 7 });
});

test("CLIP-L asks for the published parameters", () => {
  const model = new CLIPTextModel({
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
  });
  const { parameters } = capture((graph) => model.captureEncode(graph, { tokens: 77 }));
  assert.equal(parameters, 123_060_480);
});

test("the autoencoder of FLUX.1 asks for the published parameters and fits wasm at 1024x1024", async () => {
  const vae = new AutoencoderKL({
    latent_channels: 16,
    block_out_channels: [128, 256, 512, 512],
    layers_per_block: 2,
    use_quant_conv: false,
    use_post_quant_conv: false,
  });
  const decode = capture((graph) => vae.captureDecode(graph, { height: 128, width: 128 }));
  const encode = capture((graph) => vae.captureEncode(graph, { height: 64, width: 64 }));
  assert.equal(decode.parameters, 49_545_475);
  assert.equal(encode.parameters, 34_274_208);
  assert.equal(decode.names.size + encode.names.size, 244);
  const wasm = await createBackend({ backend: "wasm", threads: 1 });
  await wasm.close();
  assert.ok(decode.plan.arenaBytes < wasm.limits.arenaBytes, `${decode.plan.arenaBytes}`);
});
