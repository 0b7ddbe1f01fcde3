import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { transformerShapes, writeRandomTransformer } from "../../bench/random_transformer.ts";
import {
  BitsAndBytesConfig,
  FluxPipeline,
  type FluxPipelineOptions,
  FluxTransformer2DModel,
  GGUFQuantizationConfig,
  T5EncoderModel,
} from "../../mod.ts";
import { type Checkpoint, openCheckpoint, type TensorEntry } from "../../src/io/checkpoint.ts";
import { parseSafetensors } from "../../src/io/safetensors.ts";
import { writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { fluxFromSingleFile, fluxToSingleFile } from "../../src/models/flux_single_file.ts";
import { fluxConfigOf, t5ConfigOf } from "../../src/models/single_file_config.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../../src/tensor/shape.ts";
import { inFolder, rejects } from "../io/support.ts";
import { readGolden, SMALL_CALL } from "./goldens.ts";

/** A model folder, for everything but the transformer. */
const FOLDER = readGolden("dev").folder;
/** FLUX.1's head width, and the folder's other widths. */
const CONFIG = {
  ...JSON.parse(readFileSync(`${FOLDER}/transformer/config.json`, "utf8")),
  attention_head_dim: 128,
  axes_dims_rope: [16, 56, 56],
  num_attention_heads: 2,
  num_layers: 1,
  num_single_layers: 1,
};

async function latents(options: FluxPipelineOptions): Promise<HostTensor> {
  const opening = { backend: "wasm", threads: 1, onWarning: () => {}, ...options } as const;
  await using pipe = await FluxPipeline.fromPretrained(FOLDER, opening);
  return (await pipe.generate(SMALL_CALL)).latents;
}

/** A random transformer as one safetensors file under Black Forest Labs' names. */
async function writeSingleFile(folder: string): Promise<string> {
  await writeRandomTransformer(`${folder}/random`, CONFIG);
  const opened = await openCheckpoint(`${folder}/random`);
  await writeSafetensors(`${folder}/flux.safetensors`, await contents(fluxToSingleFile(opened)));
  await opened.close();
  return `${folder}/flux.safetensors`;
}

async function contents(checkpoint: Checkpoint): Promise<Record<string, HostTensor>> {
  const tensors: Record<string, HostTensor> = {};
  for (const name of checkpoint.entries.keys()) {
    tensors[name] = await checkpoint.read(name, { packed: true });
  }
  return tensors;
}

/** A checkpoint of headers, without data. */
function headers(shapes: Iterable<readonly [string, Shape]>): Checkpoint {
  const entries = [...shapes].map(([name, shape]): [string, TensorEntry] => {
    const bytes = 2 * elementCount(shape);
    return [name, { name, shape, dtype: "bfloat16", bytes, file: "headers" }];
  });
  return { path: "headers", entries: new Map(entries), metadata: {} } as unknown as Checkpoint;
}

for (const [variant, guidance_embeds] of [["dev", true], ["schnell", false]] as const) {
  test(`the config of FLUX.1-${variant} is read off its shapes, under either names`, () => {
    const config = {
      _class_name: "FluxTransformer2DModel",
      attention_head_dim: 128,
      axes_dims_rope: [16, 56, 56],
      guidance_embeds,
      in_channels: 64,
      joint_attention_dim: 4096,
      num_attention_heads: 24,
      num_layers: 19,
      num_single_layers: 38,
      out_channels: 64,
      patch_size: 1,
      pooled_projection_dim: 768,
    };
    const diffusers = headers(transformerShapes(config));
    assert.deepEqual(fluxConfigOf(diffusers), config);
    assert.deepEqual(fluxConfigOf(fluxFromSingleFile(fluxToSingleFile(diffusers))), config);
  });
}

test("the config of T5-XXL's encoder is read off its shapes", () => {
  const layer = (i: number): [string, Shape][] => [
    [`encoder.block.${i}.layer.0.SelfAttention.q.weight`, [4096, 4096]],
    [`encoder.block.${i}.layer.1.DenseReluDense.wi_0.weight`, [10240, 4096]],
  ];
  const found = t5ConfigOf(headers([
    ["shared.weight", [32128, 4096]],
    ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", [32, 64]],
    ...Array.from({ length: 24 }, (_, i) => layer(i)).flat(),
  ]));
  const published = {
    d_ff: 10240,
    d_kv: 64,
    d_model: 4096,
    dense_act_fn: "gelu_new",
    feed_forward_proj: "gated-gelu",
    layer_norm_epsilon: 1e-06,
    num_heads: 64,
    num_layers: 24,
    relative_attention_max_distance: 128,
    relative_attention_num_buckets: 32,
    vocab_size: 32128,
  };
  assert.deepEqual(new T5EncoderModel(found).config, new T5EncoderModel(published).config);
});

test("a single file becomes a model without its folder, and gives the folder's picture", async () => {
  await inFolder(async (folder) => {
    const file = await writeSingleFile(folder);
    await using transformer = await FluxTransformer2DModel.fromSingleFile(file);
    await using given = await FluxTransformer2DModel.fromSingleFile(file, {
      config: `${folder}/random`,
    });
    assert.deepEqual(transformer.config, given.config);
    await using fromNames = await FluxTransformer2DModel.fromSingleFile(
      `${folder}/random/diffusion_pytorch_model.safetensors`,
    );
    const expected = await latents({ transformer: fromNames });
    assert.deepEqual((await latents({ transformer })).bytes, expected.bytes);
    // The pipeline does not close what it was given.
    assert.deepEqual((await latents({ transformer })).bytes, expected.bytes);
    assert.ok(transformer.getMemoryFootprint() > 1e6);
  });
});

test("a quantized model becomes a GGUF file, and that one again, without a byte changed", async () => {
  await inFolder(async (folder) => {
    const file = await writeSingleFile(folder);
    const quantizationConfig = new GGUFQuantizationConfig({ quantType: "Q4_K_M" });
    await using model = await FluxTransformer2DModel.fromSingleFile(file, { quantizationConfig });
    await model.savePretrained(`${folder}/flux.gguf`);
    await using reopened = await FluxTransformer2DModel.fromSingleFile(`${folder}/flux.gguf`);
    await reopened.savePretrained(`${folder}/again.gguf`);
    const files = await Promise.all(["flux", "again"].map((name) => {
      return openCheckpoint(`${folder}/${name}.gguf`);
    }));
    const [written, again] = files;
    assert.equal(written.entries.get("double_blocks.0.img_attn.qkv.weight")?.ggufType, "Q5_K");
    assert.equal(written.entries.get("single_blocks.0.linear1.weight")?.ggufType, "Q4_K");
    const types = ({ entries }: Checkpoint) =>
      [...entries.values()].map((
        { name, shape, dtype, ggufType },
      ) => [name, shape, dtype, ggufType]);
    assert.deepEqual(types(again), types(written));
    assert.deepEqual(await contents(again), await contents(written));
    await Promise.all(files.map((checkpoint) => checkpoint.close()));
    const expected = await latents({ transformer: model });
    assert.deepEqual((await latents({ transformer: reopened })).bytes, expected.bytes);
  });
});

test("a model is saved as a safetensors file and as a folder, and gives the same picture", async () => {
  await inFolder(async (folder) => {
    const file = await writeSingleFile(folder);
    await using model = await FluxTransformer2DModel.fromSingleFile(file);
    const expected = await latents({ transformer: model });
    await model.savePretrained(`${folder}/again.safetensors`);
    await model.savePretrained(`${folder}/saved`);
    const read = (path: string) => parseSafetensors(new Uint8Array(readFileSync(path)), path);
    assert.deepEqual(read(`${folder}/again.safetensors`), read(file));
    await using saved = await FluxTransformer2DModel.fromSingleFile(
      `${folder}/saved/diffusion_pytorch_model.safetensors`,
      { config: `${folder}/saved/config.json` },
    );
    assert.deepEqual((await latents({ transformer: saved })).bytes, expected.bytes);
  });
});

for (
  const [scale, names] of [
    ["one scale", ["scale_weight", "scale_input"]],
    ["a scale per row", ["weight_scale", "input_scale"]],
  ] as const
) {
  test(`float8 with ${scale} in ${names[0]} is read as the weights it stands for`, async () => {
    await inFolder(async (folder) => {
      const path = await writeSingleFile(folder);
      const tensors = parseSafetensors(new Uint8Array(readFileSync(path)), path);
      const scaled: Record<string, HostTensor> = {
        scaled_fp8: HostTensor.zeros("float8_e4m3fn", [2]),
      };
      const dense: Record<string, HostTensor> = {};
      for (const [name, tensor] of tensors) {
        scaled[name] = dense[name] = tensor;
        if (!/blocks.*\.weight$/.test(name)) continue;
        const [rows, columns] = tensor.shape;
        const count = scale === "one scale" ? 1 : rows;
        const scales = Float32Array.from({ length: count }, (_, row) => 0.01 * (1 + row % 7));
        const values = tensor.toFloat32();
        const scaleAt = (i: number) => scales[count === 1 ? 0 : Math.floor(i / columns)];
        const codes = HostTensor.fromFloat32(values.map((x, i) => x / scaleAt(i)), tensor.shape)
          .cast("float8_e4m3fn");
        const module = name.replace(/\.weight$/, "");
        scaled[name] = codes;
        scaled[`${module}.${names[0]}`] = HostTensor.fromFloat32(
          scales,
          count === 1 ? [] : [rows, 1],
        );
        scaled[`${module}.${names[1]}`] = HostTensor.fromFloat32(Float32Array.of(1), []);
        dense[name] = HostTensor.fromFloat32(
          codes.toFloat32().map((x, i) => x * scaleAt(i)),
          tensor.shape,
        );
      }
      const prefixed = Object.entries(scaled).map(([name, tensor]) => {
        return [name === "scaled_fp8" ? name : `model.diffusion_model.${name}`, tensor];
      });
      await writeSafetensors(`${folder}/fp8.safetensors`, Object.fromEntries(prefixed));
      await writeSafetensors(`${folder}/dense.safetensors`, dense);
      await using fp8 = await FluxTransformer2DModel.fromSingleFile(`${folder}/fp8.safetensors`);
      await using exact = await FluxTransformer2DModel.fromSingleFile(
        `${folder}/dense.safetensors`,
      );
      assert.ok(fp8.getMemoryFootprint() < 0.4 * exact.getMemoryFootprint());
      const exactly = { backend: "reference" } as const;
      const expected = (await latents({ transformer: exact, ...exactly })).toFloat32();
      const found = (await latents({ transformer: fp8, ...exactly })).toFloat32();
      const distance = Math.hypot(...found.map((value, i) => value - expected[i])) /
        Math.hypot(...expected);
      assert.ok(distance < 1e-6, `${distance}`);
      // The halves of the last modulation, and query, key and value, keep their scales in a folder.
      await fp8.savePretrained(`${folder}/saved`);
      await using saved = await FluxTransformer2DModel.fromSingleFile(
        `${folder}/saved/diffusion_pytorch_model.safetensors`,
      );
      const again = await latents({ transformer: saved, ...exactly });
      assert.deepEqual(again.toFloat32(), found);
    });
  });
}

test("an encoder of T5 from a file with a config takes the folder's place", async () => {
  await inFolder(async (folder) => {
    const config = `${FOLDER}/text_encoder_2`;
    const file = `${config}/model.safetensors`;
    await using dense = await T5EncoderModel.fromSingleFile(file, { config });
    assert.deepEqual(
      (await latents({ textEncoder2: dense })).bytes,
      (await latents({})).bytes,
    );
    await using quantized = await T5EncoderModel.fromSingleFile(file, {
      quantizationConfig: new GGUFQuantizationConfig({ quantType: "Q8_0" }),
    });
    await quantized.savePretrained(`${folder}/t5.gguf`);
    await using reopened = await T5EncoderModel.fromSingleFile(`${folder}/t5.gguf`);
    assert.deepEqual(reopened.config, quantized.config);
    assert.ok((await latents({ textEncoder2: reopened })).size > 0);
  });
});

test("a pipeline is saved with the models it was given", async () => {
  await inFolder(async (folder) => {
    const file = await writeSingleFile(folder);
    const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true });
    await using transformer = await FluxTransformer2DModel.fromSingleFile(file, {
      quantizationConfig,
    });
    await using pipe = await FluxPipeline.fromPretrained(FOLDER, {
      backend: "wasm",
      threads: 1,
      transformer,
    });
    const expected = (await pipe.generate(SMALL_CALL)).latents;
    await pipe.savePretrained(`${folder}/saved`);
    await using again = await FluxPipeline.fromPretrained(`${folder}/saved`, {
      backend: "wasm",
      threads: 1,
    });
    assert.deepEqual((await again.generate(SMALL_CALL)).latents.bytes, expected.bytes);
    await rejects(() => transformer.savePretrained(`${folder}/x.gguf`), "unsupported", /gguf/i);
    await rejects(() => transformer.savePretrained(`${folder}/x.safetensors`), "unsupported");
    assert.ok(!existsSync(`${folder}/x.gguf`) && !existsSync(`${folder}/x.safetensors`));
  });
});

test("a config given for a component that was given too is said to be without effect", async () => {
  await inFolder(async (folder) => {
    await using transformer = await FluxTransformer2DModel.fromSingleFile(
      await writeSingleFile(folder),
    );
    const warnings: string[] = [];
    const { PipelineQuantizationConfig } = await import("../../mod.ts");
    const quantizationConfig = new PipelineQuantizationConfig({
      quantMapping: { transformer: new BitsAndBytesConfig({ loadIn4bit: true }) },
    });
    const onWarning = (message: string) => warnings.push(message);
    const dense = await latents({ transformer, quantizationConfig, onWarning });
    assert.match(warnings.join(), /does not concern the transformer/);
    assert.deepEqual(dense.bytes, (await latents({ transformer })).bytes);
  });
});

test("other models, heads of another width, unknown options and disposed models are refused", async () => {
  await inFolder(async (folder) => {
    const t5 = `${FOLDER}/text_encoder_2/model.safetensors`;
    const flux = `${FOLDER}/transformer/diffusion_pytorch_model.safetensors`;
    await rejects(() => FluxTransformer2DModel.fromSingleFile(t5), "missing_tensor");
    await rejects(() => T5EncoderModel.fromSingleFile(flux), "missing_tensor");
    await rejects(() => FluxTransformer2DModel.fromSingleFile(flux), "invalid_config", /Give the/);
    await rejects(() => FluxTransformer2DModel.fromSingleFile(`${folder}/no`), "missing_file");
    const options = { torchDtype: "bfloat16" } as object;
    await rejects(
      () => T5EncoderModel.fromSingleFile(t5, options),
      "invalid_argument",
      /torchDtype/,
    );
    const dtype = "int8" as "float32";
    await rejects(() => T5EncoderModel.fromSingleFile(t5, { dtype }), "invalid_argument", /dtype/);
    const encoder = await T5EncoderModel.fromSingleFile(t5);
    const wrong = encoder as unknown as FluxTransformer2DModel;
    await rejects(() => latents({ transformer: wrong }), "invalid_argument", /transformer/);
    await encoder.dispose();
    await encoder.dispose();
    await rejects(() => latents({ textEncoder2: encoder }), "closed");
    await rejects(() => encoder.savePretrained(`${folder}/t5.gguf`), "closed");
    assert.equal(encoder.getMemoryFootprint(), 0);
  });
});
