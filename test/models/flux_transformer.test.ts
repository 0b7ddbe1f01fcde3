import assert from "node:assert/strict";
import { test } from "node:test";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { modelTime, timestepEmbedding } from "../../src/models/timestep_embedding.ts";
import { BitsAndBytesConfig } from "../../src/quantization/bitsandbytes_config.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
import {
  GOLDENS,
  loadJson,
  loadTensors,
  relativeError,
  runForward,
  runModel,
  type Tensors,
} from "./run_model.ts";
import { defaultTransformerWeights } from "./torch_initialization.ts";

interface ForwardInputs {
  latents: HostTensor;
  text: HostTensor;
  pooled: HostTensor;
  /** Scheduler timestep, 0 to 1000. */
  timestep: number;
  guidance?: number;
  positions: { image: number[][]; text: number[][] } | { height: number; width: number };
}

/** Both plans of the transformer, one after the other, for one time. */
async function velocity(model: FluxTransformer2DModel, weights: Tensors, inputs: ForwardInputs) {
  const modulationInputs: Record<string, HostTensor> = {
    timestep: timestepEmbedding([modelTime(inputs.timestep)]),
    pooled: inputs.pooled,
  };
  if (inputs.guidance !== undefined) {
    modulationInputs.guidance = timestepEmbedding([Math.fround(inputs.guidance * 1000)]);
  }
  const { modulation } = await runModel(
    weights,
    (graph) => model.captureModulation(graph, { steps: 1 }),
    modulationInputs,
  );
  const { positions } = inputs;
  const textTokens = inputs.text.shape[0];
  const sizes = "height" in positions ? { ...positions, textTokens } : {
    height: 1,
    width: positions.image.length,
    textTokens,
    positions: [...positions.text, ...positions.image],
  };
  const outputs = await runModel(
    weights,
    (graph) => model.captureDenoise(graph, sizes),
    { latents: inputs.latents, text: inputs.text, modulation },
  );
  return outputs.velocity.toFloat32();
}

function row(tensor: HostTensor, index: number): HostTensor {
  const [, ...shape] = tensor.shape;
  const bytes = tensor.bytes.byteLength / tensor.shape[0];
  return new HostTensor(
    tensor.dtype,
    shape,
    tensor.bytes.slice(index * bytes, (index + 1) * bytes),
  );
}

for (const name of ["dev", "schnell"]) {
  test(`the transformer of "${name}" gives the velocity of Diffusers`, async () => {
    const folder = `${GOLDENS}pipelines/${name}`;
    const golden = loadTensors(`${folder}/golden.safetensors`);
    const weights = loadTensors(`${folder}/transformer/diffusion_pytorch_model.safetensors`);
    const model = new FluxTransformer2DModel(loadJson(`${folder}/transformer/config.json`));
    const call = loadJson(`${folder}/golden.json`).arguments as Record<string, number>;
    const found = await velocity(model, weights, {
      latents: row(golden.get("initial_latents")!, 0),
      text: row(golden.get("prompt_embeds")!, 0),
      pooled: golden.get("pooled_prompt_embeds")!,
      timestep: golden.get("timesteps")!.toFloat32()[0],
      guidance: model.config.guidanceEmbeds ? call.guidance_scale : undefined,
      positions: { height: call.height / 4, width: call.width / 4 },
    });
    assert.ok(relativeError(found, golden.get("trace.velocity")!.toFloat32()) < 1e-5);
  });
}

test("a transformer with more input than output channels gives the velocity of Diffusers", async () => {
  const folder = `${GOLDENS}components/transformer_wide_input`;
  const golden = loadTensors(`${folder}/golden.safetensors`);
  const weights = loadTensors(`${folder}/diffusion_pytorch_model.safetensors`);
  const model = new FluxTransformer2DModel(loadJson(`${folder}/config.json`));
  for (const batch of [0, 1]) {
    const found = await velocity(model, weights, {
      latents: row(golden.get("hidden_states")!, batch),
      text: row(golden.get("encoder_hidden_states")!, batch),
      pooled: row(golden.get("pooled_projections")!, batch).reshape([1, 32]),
      timestep: golden.get("timestep")!.toFloat32()[batch] * 1000,
      guidance: golden.get("guidance")!.toFloat32()[batch],
      positions: { height: 3, width: 4 },
    });
    const expected = row(golden.get("velocity")!, batch).toFloat32();
    assert.ok(relativeError(found, expected) < 1e-5);
  }
});

/** Diffusers' own dummy transformer, freshly made after torch.manual_seed(0). */
const DUMMY_CONFIG = {
  patch_size: 1,
  in_channels: 4,
  num_layers: 1,
  num_single_layers: 1,
  attention_head_dim: 16,
  num_attention_heads: 2,
  joint_attention_dim: 32,
  pooled_projection_dim: 32,
  axes_dims_rope: [4, 4, 8],
};

function randn(shape: number[]): HostTensor {
  return new TorchGenerator(0).randn(shape);
}

function rows(tensor: HostTensor): number[][] {
  const values = [...tensor.toFloat32()];
  return Array.from({ length: tensor.shape[0] }, (_, i) => values.slice(3 * i, 3 * i + 3));
}

const DUMMY_INPUTS = { latents: randn([16, 4]), text: randn([48, 32]), pooled: randn([1, 32]) };

function assertClose(found: ArrayLike<number>, expected: readonly number[], tolerance = 1e-5) {
  expected.forEach((value, i) =>
    assert.ok(Math.abs(found[i] - value) < tolerance, `${i}: ${found[i]}`)
  );
}

function sum(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0);
}

test("the dummy transformer of Diffusers' tests gives its golden values at arbitrary positions", async () => {
  const model = new FluxTransformer2DModel(DUMMY_CONFIG);
  const found = await velocity(model, defaultTransformerWeights(model.config), {
    ...DUMMY_INPUTS,
    timestep: 1000,
    positions: { image: rows(randn([16, 3])), text: rows(randn([48, 3])) },
  });
  assertClose(found, [.567457914, -.196262628, -.035226911, .451044947]);
  assertClose(found.slice(60), [.444483668, -.191032842, -.633449018, .436916918]);
  assertClose([sum(found), sum(found.map(Math.abs))], [2.478794304, 16.492148662], 1e-4);
});

test("the dummy transformer gives its golden values on a grid", async () => {
  const model = new FluxTransformer2DModel(DUMMY_CONFIG);
  const found = await velocity(model, defaultTransformerWeights(model.config), {
    ...DUMMY_INPUTS,
    timestep: 500,
    positions: { height: 4, width: 4 },
  });
  assertClose(found, [.580353618, -.234601572, -.014515296, .395505339]);
  assertClose([sum(found), sum(found.map(Math.abs))], [2.007890468, 16.367241086], 1e-4);
});

test("the dummy transformer with a guidance embedder gives its golden values", async () => {
  const model = new FluxTransformer2DModel({ ...DUMMY_CONFIG, guidance_embeds: true });
  const found = await velocity(model, defaultTransformerWeights(model.config), {
    ...DUMMY_INPUTS,
    timestep: 500,
    guidance: 3.5,
    positions: { height: 4, width: 4 },
  });
  assertClose(found, [-.275854379, .384196550, .253607988, .982936680]);
  assertClose([sum(found)], [8.174256943], 1e-4);
});

test("modulation of many steps at once equals that of each step alone", async () => {
  const model = new FluxTransformer2DModel({ ...DUMMY_CONFIG, guidance_embeds: true });
  const weights = defaultTransformerWeights(model.config);
  const times = [1000, 750, 312.5, 40].map(modelTime);
  const modulation = async (steps: number[]) => {
    const outputs = await runModel(
      weights,
      (graph) => model.captureModulation(graph, { steps: steps.length }),
      {
        timestep: timestepEmbedding(steps),
        guidance: timestepEmbedding([3500]),
        pooled: DUMMY_INPUTS.pooled,
      },
    );
    return outputs.modulation;
  };
  const together = await modulation(times);
  assert.deepEqual(together.shape, [4, model.modulationColumns]);
  for (const [step, time] of times.entries()) {
    const alone = (await modulation([time])).toFloat32();
    assert.ok(relativeError(row(together, step).toFloat32(), alone) < 1e-6);
  }
});

test("under LLM.int8() each step finds its own outliers, as when it runs alone", async () => {
  const model = new FluxTransformer2DModel(DUMMY_CONFIG);
  const tensors = defaultTransformerWeights(model.config);
  const checkpoint = {
    entries: tensors,
    read: (name: string) => Promise.resolve(tensors.get(name)!),
  };
  const { catalog, source } = await openWeights(checkpoint, {
    config: { _class_name: "FluxTransformer2DModel" },
    quantizationConfig: new BitsAndBytesConfig({ loadIn8bit: true, llmInt8Threshold: 0.9 }),
    linearNames: (name) => model.isLinearWeight(name),
  });
  const modulation = async (times: number[]) => {
    const outputs = await runForward(
      catalog,
      source,
      (graph) => model.captureModulation(graph, { steps: times.length }),
      { timestep: timestepEmbedding(times), pooled: DUMMY_INPUTS.pooled },
    );
    return outputs.modulation;
  };
  const times = [1000, 400, 20].map(modelTime);
  const together = await modulation(times);
  for (const [step, time] of times.entries()) {
    assert.deepEqual(row(together, step).bytes, (await modulation([time])).bytes);
  }
});

test("a linear weight is told from a norm weight by its name", () => {
  const model = new FluxTransformer2DModel(DUMMY_CONFIG);
  const names = [...defaultTransformerWeights(model.config)];
  for (const [name, tensor] of names) {
    assert.equal(model.isLinearWeight(name), tensor.shape.length === 2, name);
  }
});

test("absurd configs are refused with the key at fault", () => {
  const cases: [string, unknown][] = [
    ["num_layers", 1e9],
    ["num_layers", -1],
    ["num_attention_heads", 0],
    ["attention_head_dim", 1.5],
    ["in_channels", "64"],
    ["joint_attention_dim", 2 ** 40],
    ["axes_dims_rope", [4, 4, 4]],
    ["axes_dims_rope", [3, 5, 8]],
    ["guidance_embeds", 1],
    ["patch_size", 2],
  ];
  for (const [key, value] of cases) {
    assert.throws(
      () => new FluxTransformer2DModel({ ...DUMMY_CONFIG, [key]: value }),
      (error: { code?: string; message: string }) =>
        error.code === "invalid_config" && error.message.includes(key),
      key,
    );
  }
});

test("a config without keys is that of FLUX.1", () => {
  const { config } = new FluxTransformer2DModel({});
  assert.deepEqual(config, {
    inChannels: 64,
    outChannels: 64,
    numLayers: 19,
    numSingleLayers: 38,
    attentionHeadDim: 128,
    numAttentionHeads: 24,
    jointAttentionDim: 4096,
    pooledProjectionDim: 768,
    guidanceEmbeds: false,
    axesDimsRope: [16, 56, 56],
  });
});
