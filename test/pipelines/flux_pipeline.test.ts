import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { decode } from "fast-png";
import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import type { Backend, Program } from "../../src/backends/backend.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxGenerateOptions, FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { parseQuantizeFlags } from "../../src/quantization/formats.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
import { readGolden, relativeError } from "./goldens.ts";

const FOLDER = readGolden("schnell").folder;

function open(options: FluxPipelineOptions = {}, folder = FOLDER): Promise<FluxPipeline> {
  return FluxPipeline.fromPretrained(folder, { backend: "reference", ...options });
}

/** A call of few milliseconds. */
const CALL: FluxGenerateOptions = {
  prompt: "a red star",
  width: 16,
  height: 8,
  numInferenceSteps: 3,
  maxSequenceLength: 8,
  seed: 3,
};

test("the same seed gives the same bytes, another seed another picture", async () => {
  await using pipe = await open();
  const [first, second, other] = [
    await pipe.generate(CALL),
    await pipe.generate(CALL),
    await pipe.generate({ ...CALL, seed: 4 }),
  ];
  assert.deepEqual(first.images[0].toPng(), second.images[0].toPng());
  assert.deepEqual(first.latents.bytes, second.latents.bytes);
  assert.notDeepEqual(first.latents.bytes, other.latents.bytes);
  assert.equal(first.planHash, second.planHash);
});

test("calls made at once wait for each other and give what they give alone", async () => {
  await using pipe = await open();
  const calls = [1, 2, 3].map((seed) => ({ ...CALL, seed, width: 8 * seed }));
  const together = await Promise.all(calls.map((call) => pipe.generate(call)));
  for (const [index, call] of calls.entries()) {
    const alone = await pipe.generate(call);
    assert.deepEqual(together[index].latents.bytes, alone.latents.bytes);
  }
});

test("a generator is used up from call to call, as in PyTorch", async () => {
  await using pipe = await open();
  const generator = new TorchGenerator(3);
  const first = await pipe.generate({ ...CALL, seed: undefined, generator });
  const second = await pipe.generate({ ...CALL, seed: undefined, generator });
  assert.deepEqual(first.latents.bytes, (await pipe.generate(CALL)).latents.bytes);
  assert.notDeepEqual(first.latents.bytes, second.latents.bytes);
  assert.equal(first.seed, null);
});

test("a batch of seeds gives the pictures of the seeds", async () => {
  await using pipe = await open();
  const batch = await pipe.generate({ ...CALL, numImagesPerPrompt: 2, seed: [3, 4] });
  assert.deepEqual(batch.latents.shape, [2, 8, 16]);
  for (const [index, seed] of [3, 4].entries()) {
    const alone = await pipe.generate({ ...CALL, seed });
    assert.deepEqual(batch.images[index].pixels, alone.images[0].pixels);
  }
});

test("a PNG tells how it was made, and nothing of the machine", async () => {
  await using pipe = await open();
  const negativePrompt = "ein Vogel 🐦";
  const output = await pipe.generate({ ...CALL, negativePrompt, trueCfgScale: 2, seed: 7n });
  const { text } = decode(output.images[0].toPng());
  assert.equal(text.Software, "halftone");
  assert.deepEqual(JSON.parse(text.parameters), {
    prompt: CALL.prompt,
    negativePrompt,
    seed: "7",
    image: 0,
    numInferenceSteps: 3,
    guidanceScale: 3.5,
    trueCfgScale: 2,
    planHash: output.planHash,
  });
});

test("output type latent gives packed latents and no pictures", async () => {
  await using pipe = await open();
  const output = await pipe.generate({ ...CALL, outputType: "latent" });
  assert.deepEqual(output.images, []);
  assert.deepEqual(output.latents.bytes, (await pipe.generate(CALL)).latents.bytes);
  assert.equal(output.timings.decode, 0);
});

test("timings name every stage and every step", async () => {
  await using pipe = await open();
  const { timings } = await pipe.generate(CALL);
  assert.equal(timings.steps.length, 3);
  const { load, plan, text, denoise, decode, total } = timings;
  for (const seconds of [load, plan, text, denoise, decode]) assert.ok(seconds > 0);
  assert.ok(Math.abs(load + plan + text + denoise + decode - total) < 1e-9);
  assert.equal((await pipe.generate(CALL)).timings.load, 0);
});

test("the step callback sees each step and may replace latents and text", async () => {
  await using pipe = await open();
  const plain = await pipe.generate(CALL);
  const seen: [number, number, number][] = [];
  let halfway: HostTensor | undefined;
  await pipe.generate({
    ...CALL,
    onStep: ({ step, steps, timestep, latents }) => {
      seen.push([step, steps, timestep]);
      if (step === 1) halfway = latents;
    },
  });
  assert.deepEqual(seen.map(([step, steps]) => [step, steps]), [[0, 3], [1, 3], [2, 3]]);
  assert.equal(seen[0][2], 1000);
  const resumed = await pipe.generate({
    ...CALL,
    seed: 9,
    onStep: ({ step }) => step === 1 ? { latents: halfway } : undefined,
  });
  assert.deepEqual(resumed.latents.bytes, plain.latents.bytes);
  const retold = await pipe.generate({
    ...CALL,
    onStep: ({ promptEmbeds }) => ({
      promptEmbeds: HostTensor.fromFloat32(
        promptEmbeds.toFloat32().map((x) => -x),
        promptEmbeds.shape,
      ),
    }),
  });
  assert.ok(relativeError(retold.latents.toFloat32(), plain.latents.toFloat32()) > 1e-3);
});

test("the step callback may end the run early, and wrong shapes from it are refused", async () => {
  await using pipe = await open();
  let after: HostTensor | undefined;
  const output = await pipe.generate({
    ...CALL,
    onStep: ({ latents }) => {
      after = latents;
      return { interrupt: true };
    },
  });
  assert.deepEqual(output.latents.bytes, after!.bytes);
  for (const field of ["latents", "promptEmbeds"]) {
    const onStep = () => ({ [field]: HostTensor.zeros("float32", [1, 2, 3]) });
    await assert.rejects(pipe.generate({ ...CALL, onStep }), (error: { detail?: unknown }) => {
      return (error.detail as { field?: string }).field === field;
    });
  }
  await assert.rejects(
    pipe.generate({
      ...CALL,
      onStep: () => {
        throw new Error("mine");
      },
    }),
    /mine/,
  );
  assert.equal((await pipe.generate(CALL)).images.length, 1);
});

test("true guidance at scale s is v- + s (v - v-), and its text may be of another length", async () => {
  await using pipe = await open();
  const generator = new TorchGenerator(5);
  const negative = {
    negativePromptEmbeds: generator.randn([1, 5, 32]),
    negativePooledPromptEmbeds: generator.randn([1, 32]),
  };
  const one = { ...CALL, numInferenceSteps: 1, outputType: "latent" } as const;
  const away = await pipe.generate({
    ...one,
    prompt: undefined,
    promptEmbeds: negative.negativePromptEmbeds,
    pooledPromptEmbeds: negative.negativePooledPromptEmbeds,
  });
  const plain = await pipe.generate(one);
  const guided = await pipe.generate({ ...one, ...negative, trueCfgScale: 3 });
  // One step is linear in the velocity, so the latents combine as the velocities do.
  const expected = plain.latents.toFloat32().map((x, i) => {
    const other = away.latents.toFloat32()[i];
    return other + 3 * (x - other);
  });
  assert.ok(relativeError(guided.latents.toFloat32(), expected) < 1e-5);
});

test("an aborted signal ends a run within a step, and the pipeline stays usable", async () => {
  await using pipe = await open();
  await assert.rejects(pipe.generate({ ...CALL, signal: AbortSignal.abort() }), {
    code: "aborted",
  });
  for (const last of [0, 1]) {
    const controller = new AbortController();
    let steps = 0;
    const run = pipe.generate({
      ...CALL,
      signal: controller.signal,
      onStep: ({ step }) => {
        steps++;
        if (step === last) controller.abort();
      },
    });
    await assert.rejects(run, { code: "aborted" });
    assert.equal(steps, last + 1);
  }
  assert.equal((await pipe.generate(CALL)).images.length, 1);
});

for (const backend of ["reference", "wasm"] as const) {
  test(`a signal aborts ${backend} in mid-step and frees all but the weights`, async () => {
    await using pipe = await open({ backend });
    const before = await pipe.generate(CALL);
    const held = pipe.backend.memory();
    assert.equal(held.arena, 0);
    const controller = new AbortController();
    const call = { ...CALL, width: 128, height: 128, numInferenceSteps: 1000 };
    const began = performance.now();
    const run = pipe.generate({ ...call, signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 100);
    await assert.rejects(run, (error: { code?: string; cause?: unknown }) => {
      return error.code === "aborted";
    });
    assert.ok(performance.now() - began < 5000);
    const { weights, arena, scratch } = pipe.backend.memory();
    assert.deepEqual([weights, arena, scratch], [held.weights, 0, held.scratch]);
    const after = await pipe.generate(CALL);
    assert.deepEqual(after.latents.bytes, before.latents.bytes);
  });
}

test("loading ends when its signal is aborted, and nothing stays held", async () => {
  const backend = createReferenceBackend();
  const controller = new AbortController();
  let loaded = 0;
  const opening = open({
    backend,
    signal: controller.signal,
    onProgress: () => {
      if (++loaded === 5) controller.abort();
    },
  });
  await assert.rejects(opening, { code: "aborted" });
  assert.equal(backend.memory().weights, 0);
  await backend.close();
});

test("loading reports every weight of every stage", async () => {
  const last = new Map<string, [number, number]>();
  await using pipe = await open({
    onProgress: ({ stage, done, total }) => last.set(stage, [done, total]),
  });
  const stages = pipe.plan({ width: 8, height: 8 }).stages.map(({ name }) => name);
  assert.deepEqual([...last.keys()], stages);
  for (const [done, total] of last.values()) assert.equal(done, total);
});

/** A backend that remembers the plans it ran and the weights held meanwhile. */
function watched(): { backend: Backend; runs: [string, number][] } {
  const backend = createReferenceBackend();
  const runs: [string, number][] = [];
  const watch = new Proxy(backend, {
    get(target, key) {
      if (key === "compile") {
        return async (...given: Parameters<Backend["compile"]>): Promise<Program> => {
          const program = await target.compile(...given);
          runs.push([given[0].name, target.memory().weights]);
          return program;
        };
      }
      const value = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { backend: watch, runs };
}

test("weights that are not kept leave before the first step", async () => {
  const { backend, runs } = watched();
  const keep = { keepTextEncoders: false, keepModulation: false };
  await using pipe = await open({ backend, ...keep });
  assert.equal(backend.memory().weights, 0);
  const output = await pipe.generate(CALL);
  const { stages, memory } = pipe.plan(CALL_SIZES);
  const bytes = Object.fromEntries(stages.map(({ name, weightBytes }) => [name, weightBytes]));
  assert.deepEqual(runs, [
    ["text_encoder", bytes["text_encoder"]],
    ["text_encoder_2", bytes["text_encoder_2"]],
    ["transformer.modulation", bytes["transformer.modulation"]],
    ["transformer.denoise", bytes["transformer.denoise"]],
    ["vae.decode", bytes["transformer.denoise"] + bytes["vae.decode"]],
  ]);
  assert.equal(output.memory.peak, memory.peak);
  assert.equal(output.memory.resident, memory.resident);
  await using roomy = await open();
  const whole = await roomy.generate(CALL);
  assert.deepEqual(output.images[0].pixels, whole.images[0].pixels);
  assert.ok(whole.memory.peak > output.memory.peak);
});

test("a prompt is encoded once, and no encoder is loaded for one that is known", async () => {
  const { backend, runs } = watched();
  await using pipe = await open({ backend, keepTextEncoders: false, keepModulation: false });
  const encoded = () => runs.splice(0).filter(([name]) => name.startsWith("text_encoder")).length;
  const first = await pipe.generate(CALL);
  assert.equal(encoded(), 2);
  const again = await pipe.generate(CALL);
  assert.equal(encoded(), 0);
  assert.deepEqual(again.latents.bytes, first.latents.bytes);
  await pipe.generate({ ...CALL, prompt2: "a blue house" });
  assert.equal(encoded(), 1); // CLIP knows its prompt
  await pipe.generate({ ...CALL, maxSequenceLength: 9 });
  assert.equal(encoded(), 1); // T5 has not seen it at this length
});

const CALL_SIZES = { width: 16, height: 8, numInferenceSteps: 3, maxSequenceLength: 8 };

test("weights that fit the machine are all loaded at once and kept, unless told otherwise", async () => {
  const { backend } = watched();
  await using pipe = await open({ backend });
  const total = pipe.plan(CALL_SIZES).stages.reduce((sum, stage) => sum + stage.weightBytes, 0);
  assert.equal(backend.memory().weights, total);
  await pipe.generate(CALL);
  assert.equal(backend.memory().weights, total);
  await using mixed = await open({ keepTextEncoders: false });
  assert.deepEqual(
    mixed.plan(CALL_SIZES).stages.map(({ keepsWeights }) => keepsWeights),
    [false, false, true, true, true],
  );
});

test("describe tells what a run will be, without loading a weight", async () => {
  const { backend } = watched();
  const report = await FluxPipeline.describe(FOLDER, { backend, ...CALL_SIZES });
  assert.equal(backend.memory().peak, 0);
  await using pipe = await open({ backend });
  const output = await pipe.generate(CALL);
  assert.equal(report.planHash, output.planHash);
  assert.equal(report.memory.peak, output.memory.peak);
  assert.deepEqual([report.width, report.height], [output.width, output.height]);
  assert.ok(report.stages[3].text.startsWith("plan transformer.denoise"));
  for (const options of [{ width: 0 }, { numInferenceSteps: 0 }, { maxSequenceLength: 600 }]) {
    assert.throws(() => pipe.plan(options), { code: "invalid_argument" });
  }
});

test("a picture too large for the backend is refused before anything runs", async () => {
  const backend = createReferenceBackend();
  const small = new Proxy(backend, {
    get(target, key) {
      if (key === "limits") return { residentWeightBytes: Infinity, arenaBytes: 1 << 20 };
      const value = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  await using pipe = await open({ backend: small });
  await pipe.generate(CALL);
  await assert.rejects(pipe.generate({ ...CALL, width: 512, height: 512 }), {
    code: "out_of_memory",
  });
});

test("encoded prompts are those of Diffusers and serve in place of the prompts", async () => {
  const { tensors, options } = readGolden("schnell");
  await using pipe = await open();
  const { prompt, maxSequenceLength } = options as { prompt: string; maxSequenceLength: number };
  const embeddings = await pipe.encodePrompt({ prompt, maxSequenceLength });
  const expected = tensors.get("prompt_embeds")!;
  assert.deepEqual(embeddings.promptEmbeds.shape, expected.shape);
  const found = embeddings.promptEmbeds.toFloat32();
  assert.ok(relativeError(found, expected.toFloat32()) < 1e-5);
  const { prompt: _, ...rest } = CALL;
  const fromEmbeds = await pipe.generate({ ...rest, ...embeddings });
  const fromPrompt = await pipe.generate({ ...CALL, prompt, maxSequenceLength });
  assert.deepEqual(fromEmbeds.latents.bytes, fromPrompt.latents.bytes);
  const batch = await pipe.encodePrompt({ prompt: [prompt, "a"], maxSequenceLength });
  assert.deepEqual(batch.promptEmbeds.shape, [2, 16, 32]);
  assert.deepEqual(batch.pooledPromptEmbeds.shape, [2, 32]);
  await assert.rejects(pipe.encodePrompt({ prompt: 5 as unknown as string }), {
    code: "invalid_argument",
  });
});

test("odd sizes, cut prompts and unknown components are warned of", async () => {
  const warnings: string[] = [];
  await using pipe = await open({
    onWarning: (message) => warnings.push(message),
    quantizationConfig: parseQuantizeFlags(["refiner=bitsandbytes:nf4"]),
  });
  assert.match(warnings.pop()!, /refiner/);
  await pipe.generate({ ...CALL, width: 18, height: 11 });
  assert.deepEqual(warnings.splice(0), ["Sides must be divisible by 4: 18x11 comes out as 16x8"]);
  await pipe.generate({ ...CALL, prompt: `a red star and ${"more ".repeat(100)}words` });
  assert.deepEqual(warnings.map((warning) => warning.split(" ")[0]), [
    "text_encoder",
    "text_encoder_2",
  ]);
  assert.match(warnings[0], /reads 77 tokens; this part of the prompt was cut: "more more/);
});

test("a disposed pipeline frees its weights and refuses calls", async () => {
  const backend = createReferenceBackend();
  const pipe = await open({ backend });
  const began = Promise.withResolvers<void>();
  const running = pipe.generate({ ...CALL, onStep: () => began.resolve() });
  await began.promise;
  const waiting = pipe.generate(CALL);
  const disposed = pipe.dispose();
  assert.equal((await running).images.length, 1);
  await assert.rejects(waiting, { code: "closed" });
  await disposed;
  await pipe.dispose();
  assert.equal(backend.memory().weights, 0);
  await assert.rejects(pipe.generate(CALL), { code: "closed" });
  assert.throws(() => pipe.plan(), { code: "closed" });
  await backend.close();
});

test("wrong options of opening are refused by name", async () => {
  const bad = (options: unknown) => open(options as FluxPipelineOptions);
  await assert.rejects(bad({ torch_dtype: "float32" }), { code: "invalid_argument" });
  await assert.rejects(bad({ backend: "cuda9" }), { code: "invalid_argument" });
  await assert.rejects(bad({ backend: {} }), { code: "invalid_argument" });
  await assert.rejects(bad({ dtype: "int8" }), { code: "invalid_argument" });
  await assert.rejects(open({}, "no/such/folder"), { code: "model_not_found" });
});

/** A copy of a model folder with one file changed. */
async function withChanged(
  file: string,
  change: (text: string) => string,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/halftone-model-`);
  cpSync(FOLDER, folder, { recursive: true });
  writeFileSync(`${folder}/${file}`, change(readFileSync(`${folder}/${file}`, "utf8")));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function edited(changes: Record<string, unknown>): (text: string) => string {
  return (text) => JSON.stringify({ ...JSON.parse(text), ...changes });
}

test("model folders that do not fit together are refused with the place at fault", async () => {
  const cases: [string, Record<string, unknown>, string, string][] = [
    ["model_index.json", { _class_name: "SanaPipeline" }, "unsupported", "SanaPipeline"],
    ["model_index.json", { vae: ["diffusers", "AsymmetricVae"] }, "unsupported", "vae"],
    ["model_index.json", { transformer: [null, null] }, "invalid_config", "transformer"],
    ["transformer/config.json", { num_layers: 1e9 }, "invalid_config", "num_layers"],
    ["transformer/config.json", { num_layers: 2 }, "missing_tensor", "transformer_blocks.1"],
    ["transformer/config.json", { joint_attention_dim: 64 }, "invalid_config", "d_model"],
    ["transformer/config.json", { pooled_projection_dim: 48 }, "invalid_config", "hidden_size"],
    [
      "transformer/config.json",
      { in_channels: 64, out_channels: 16 },
      "unsupported",
      "in_channels",
    ],
    ["vae/config.json", { latent_channels: 8 }, "invalid_config", "latent_channels"],
    ["vae/config.json", { block_out_channels: [4, 8] }, "tensor_shape_mismatch", "vae"],
    ["text_encoder_2/config.json", { d_ff: 64 }, "tensor_shape_mismatch", "wi_0"],
    ["scheduler/scheduler_config.json", { shift: "x" }, "invalid_config", "shift"],
  ];
  for (const [file, changes, code, mention] of cases) {
    await withChanged(file, edited(changes), async (folder) => {
      await assert.rejects(open({}, folder), (error: { code?: string; message: string }) => {
        assert.equal(error.code, code, error.message);
        assert.ok(error.message.includes(mention), error.message);
        assert.ok(error.message.includes(folder), error.message);
        return true;
      });
    });
  }
});

test("a tokenizer that lacks a file is refused with the file's whole path", async () => {
  await withChanged("tokenizer/vocab.json", () => "{", async (folder) => {
    const refused = { code: "invalid_config", message: new RegExp(`${folder}/tokenizer/vocab`) };
    await assert.rejects(open({}, folder), refused);
  });
});

test("a weight that is not a number is refused by name before any picture", async () => {
  const folder = mkdtempSync(`${tmpdir()}/halftone-model-`);
  cpSync(FOLDER, folder, { recursive: true });
  const file = `${folder}/transformer/diffusion_pytorch_model.safetensors`;
  const bytes = readFileSync(file);
  bytes.writeUInt16LE(0x7fc0, bytes.length - 2); // a bfloat16 NaN
  writeFileSync(file, bytes);
  await assert.rejects(
    open({}, folder),
    (error: { code?: string; detail?: { tensor?: string } }) => {
      return error.code === "non_finite_weight" && error.detail?.tensor !== undefined;
    },
  );
  rmSync(folder, { recursive: true });
});

test("a model folder without text encoders runs on embeddings", async () => {
  const without = { text_encoder: [null, null], text_encoder_2: [null, null] };
  await withChanged("model_index.json", edited(without), async (folder) => {
    await using pipe = await open({}, folder);
    await assert.rejects(pipe.generate(CALL), { code: "invalid_argument" });
    const golden = readGolden("schnell").tensors;
    const { images } = await pipe.generate({
      ...CALL,
      prompt: undefined,
      promptEmbeds: golden.get("prompt_embeds"),
      pooledPromptEmbeds: golden.get("pooled_prompt_embeds"),
    });
    assert.equal(images.length, 1);
  });
});
