import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HalftoneError } from "../../src/errors.ts";
import type { FluxGenerateOptions } from "../../src/pipelines/flux_options.ts";
import type { FluxTraits } from "../../src/pipelines/call_checks.ts";
import { parseFluxRequest } from "../../src/pipelines/flux_request.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";

const TRAITS: FluxTraits = {
  inChannels: 64,
  jointAttentionDim: 4096,
  pooledProjectionDim: 768,
  scaleFactor: 8,
  defaultSide: 1024,
  hasTextEncoder: true,
  hasTextEncoder2: true,
};

const parse = (options: FluxGenerateOptions, traits = TRAITS) => parseFluxRequest(options, traits);

function zeros(...shape: number[]): HostTensor {
  return HostTensor.zeros("float32", shape);
}

const EMBEDS = { promptEmbeds: zeros(1, 9, 4096), pooledPromptEmbeds: zeros(1, 768) };
const NEGATIVE_EMBEDS = {
  negativePromptEmbeds: zeros(1, 5, 4096),
  negativePooledPromptEmbeds: zeros(1, 768),
};

test("the defaults are those of Diffusers", () => {
  const request = parse({ prompt: "a star" });
  assert.deepEqual(request.sizes, { rows: 64, columns: 64, tokens: 4096, channels: 16 });
  assert.equal(request.numInferenceSteps, 28);
  assert.equal(request.guidanceScale, 3.5);
  assert.equal(request.trueCfgScale, 1);
  assert.equal(request.textTokens, 512);
  assert.equal(request.images, 1);
  assert.equal(request.negative, null);
  assert.equal(request.outputType, "png");
  assert.deepEqual(request.positive, { kind: "text", clip: ["a star"], t5: ["a star"] });
});

test("sides not divisible by 16 are rounded down to whole tokens", () => {
  const { sizes } = parse({ prompt: "", width: 250, height: 129 });
  assert.deepEqual([sizes.columns, sizes.rows], [15, 8]);
});

test("sigmas run evenly from 1 to 1 / steps, and given ones set the number of steps", () => {
  assert.deepEqual(parse({ prompt: "", numInferenceSteps: 4 }).sigmas, [1, 0.75, 0.5, 0.25]);
  assert.deepEqual(parse({ prompt: "", numInferenceSteps: 1 }).sigmas, [1]);
  const given = parse({ prompt: "", numInferenceSteps: 9, sigmas: [1, 0.3] });
  assert.deepEqual([given.sigmas, given.numInferenceSteps], [[1, 0.3], 2]);
});

test("true guidance needs a scale above 1 and something negative", () => {
  const negativePrompt = "a face";
  assert.equal(parse({ prompt: "", negativePrompt }).negative, null);
  assert.equal(parse({ prompt: "", trueCfgScale: 4 }).negative, null);
  const { negative } = parse({ prompt: ["a", "b"], negativePrompt, trueCfgScale: 4 });
  assert.deepEqual(negative, {
    kind: "text",
    clip: ["a face", "a face"],
    t5: ["a face", "a face"],
  });
  const mixed = parse({ prompt: "", trueCfgScale: 2, ...NEGATIVE_EMBEDS });
  assert.deepEqual([mixed.negative?.kind, mixed.negativeTextTokens], ["embeds", 5]);
});

test("prompts make a batch, and numImagesPerPrompt multiplies it", () => {
  const request = parse({ prompt: ["a", "b"], prompt2: ["c", "d"], numImagesPerPrompt: 3 });
  assert.deepEqual([request.prompts, request.images], [2, 6]);
  assert.deepEqual(request.positive, { kind: "text", clip: ["a", "b"], t5: ["c", "d"] });
  assert.equal(parse({ ...EMBEDS, maxSequenceLength: 77 }).textTokens, 9);
});

test("seeds and generators come one per call or one per picture", () => {
  assert.equal(parse({ prompt: "", seed: 5 }).generators.length, 1);
  assert.equal(parse({ prompt: ["", ""], seed: [5, 6n] }).generators.length, 2);
  const generator = new TorchGenerator(1);
  const given = parse({ prompt: "", generator });
  assert.deepEqual([given.generators, given.seed], [[generator], null]);
  const random = parse({ prompt: "" }).seed;
  assert.ok(typeof random === "number" && Number.isInteger(random) && random < 2 ** 32);
});

test("each bad option is refused by name", () => {
  const prompt = "a star";
  const cases: [string, Record<string, unknown>][] = [
    ["prompt", {}],
    ["prompt", { prompt: 5 }],
    ["prompt", { prompt: [] }],
    ["prompt", { prompt: ["a", null] }],
    ["prompt", { prompt: "x".repeat(2 ** 20) }],
    ["prompt", { prompt, ...EMBEDS }],
    ["prompt2", { prompt2: prompt, ...EMBEDS }],
    ["prompt2", { prompt: ["a", "b", "c"], prompt2: ["a", "b"] }],
    ["pooledPromptEmbeds", { promptEmbeds: EMBEDS.promptEmbeds }],
    ["promptEmbeds", { pooledPromptEmbeds: EMBEDS.pooledPromptEmbeds }],
    ["promptEmbeds", { ...EMBEDS, promptEmbeds: zeros(1, 9, 8) }],
    ["promptEmbeds", { ...EMBEDS, promptEmbeds: zeros(9, 4096) }],
    ["promptEmbeds", { ...EMBEDS, promptEmbeds: zeros(1, 0, 4096) }],
    ["pooledPromptEmbeds", { ...EMBEDS, pooledPromptEmbeds: zeros(2, 768) }],
    ["negativePrompt", { prompt, negativePrompt: prompt, ...NEGATIVE_EMBEDS }],
    ["negativePooledPromptEmbeds", {
      prompt,
      negativePromptEmbeds: NEGATIVE_EMBEDS.negativePromptEmbeds,
    }],
    ["negativePromptEmbeds", {
      prompt,
      negativePooledPromptEmbeds: NEGATIVE_EMBEDS.negativePooledPromptEmbeds,
    }],
    ["negativePromptEmbeds", { prompt: ["a", "b"], ...NEGATIVE_EMBEDS }],
    ["negativePrompt", { prompt: ["a", "b", "c"], negativePrompt: ["a", "b"] }],
    ["width", { prompt, width: 0 }],
    ["width", { prompt, width: 15 }],
    ["width", { prompt, width: 2 ** 40 }],
    ["width", { prompt, width: 100.5 }],
    ["width", { prompt, width: "512" }],
    ["width", { prompt, width: 16384, height: 16384 }],
    ["height", { prompt, height: -16 }],
    ["height", { prompt, height: NaN }],
    ["numInferenceSteps", { prompt, numInferenceSteps: 0 }],
    ["numInferenceSteps", { prompt, numInferenceSteps: 1e9 }],
    ["sigmas", { prompt, sigmas: [] }],
    ["sigmas", { prompt, sigmas: [1, NaN] }],
    ["sigmas", { prompt, sigmas: "1" }],
    ["guidanceScale", { prompt, guidanceScale: Infinity }],
    ["trueCfgScale", { prompt, trueCfgScale: "4" }],
    ["numImagesPerPrompt", { prompt, numImagesPerPrompt: 0 }],
    ["numImagesPerPrompt", { prompt: new Array(40).fill("a"), numImagesPerPrompt: 2 }],
    ["seed", { prompt, seed: 0.5 }],
    ["seed", { prompt, seed: 2n ** 70n }],
    ["seed", { prompt, seed: [1, 2] }],
    ["seed", { prompt, seed: 1, generator: new TorchGenerator(1) }],
    ["generator", { prompt, generator: [new TorchGenerator(1), new TorchGenerator(2)] }],
    ["generator", { prompt, generator: {} }],
    ["latents", { prompt, latents: zeros(1, 16, 128, 128) }],
    ["promptEmbeds", { promptEmbeds: [1, 2], pooledPromptEmbeds: [1] }],
    ["latents", { prompt, latents: [0] }],
    ["maxSequenceLength", { prompt, maxSequenceLength: 513 }],
    ["maxSequenceLength", { prompt, maxSequenceLength: 0 }],
    ["outputType", { prompt, outputType: "pil" }],
    ["onStep", { prompt, onStep: 1 }],
    ["signal", { prompt, signal: 1 }],
    ["num_inference_steps", { prompt, num_inference_steps: 4 }],
  ];
  for (const [field, options] of cases) {
    assert.throws(
      () => parse(options as FluxGenerateOptions),
      (error: { code?: string; detail?: { field?: string } }) =>
        error.code === "invalid_argument" && error.detail?.field === field,
      `${field}: ${Object.keys(options)}`,
    );
  }
});

test("without text encoders, prompts are refused and embeddings taken", () => {
  const traits = { ...TRAITS, hasTextEncoder2: false };
  assert.throws(() => parse({ prompt: "a" }, traits), { code: "invalid_argument" });
  assert.equal(parse(EMBEDS, traits).positive.kind, "embeds");
});

test("whatever the options are, a call is accepted or refused by name, never by accident", () => {
  const tensor = fc.array(fc.nat(6), { maxLength: 4 }).map((shape) => zeros(...shape));
  const value = fc.oneof(
    fc.anything(),
    fc.string(),
    fc.integer(),
    fc.double(),
    fc.array(fc.oneof(fc.string(), fc.double()), { maxLength: 3 }),
    tensor,
    fc.constant(EMBEDS.promptEmbeds),
    fc.constant(EMBEDS.pooledPromptEmbeds),
  );
  const fields = [
    ...["prompt", "prompt2", "negativePrompt", "negativePrompt2", "promptEmbeds"],
    ...["pooledPromptEmbeds", "negativePromptEmbeds", "negativePooledPromptEmbeds", "width"],
    ...["height", "numInferenceSteps", "sigmas", "guidanceScale", "trueCfgScale", "seed"],
    ...["numImagesPerPrompt", "generator", "latents", "maxSequenceLength", "outputType", "onStep"],
  ];
  const entry = fc.tuple(fc.constantFrom(...fields), value);
  const options = fc.array(entry, { maxLength: 6 }).map((entries) => Object.fromEntries(entries));
  fc.assert(
    fc.property(options, (given) => {
      try {
        parse({ prompt: "a star", ...given });
      } catch (error) {
        assert.ok(error instanceof HalftoneError, String(error));
        assert.equal(error.code, "invalid_argument");
        assert.ok(error.detail.field);
      }
    }),
    { numRuns: 1000 },
  );
});
