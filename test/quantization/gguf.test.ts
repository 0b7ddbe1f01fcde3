import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { quantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import { quantizeToGguf } from "../../src/io/quantize_gguf.ts";
import { writeCheckpoint, writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { fluxToSingleFile } from "../../src/models/flux_single_file.ts";
import { configFromDict } from "../../src/quantization/auto.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import { GGUF, GgufQuantizer } from "../../src/quantization/gguf.ts";
import { float16Bits, float16Value } from "../../src/quantization/gguf_float16.ts";
import { ggufTypeOfLayout } from "../../src/quantization/gguf_blocks.ts";
import { GGUFQuantizationConfig } from "../../src/quantization/gguf_config.ts";
import {
  GGUF_MIXES,
  type GgufMix,
  ggufTypeFor,
  staysDense,
} from "../../src/quantization/gguf_mixes.ts";
import { decodeBlocks, encodeBlocks } from "../../src/quantization/gguf_tensors.ts";
import { type GgufBlockType, ggufTypeInfo } from "../../src/quantization/gguf_types.ts";
import type { NamedTensor } from "../../src/quantization/quantizer.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { rejects } from "../io/support.ts";
import { randomBlocks } from "./gguf_recipes.ts";
import { randomValues, tensorOf } from "./support.ts";

test("a config keeps its type, from options and from either spelling of a dictionary", () => {
  const config = new GGUFQuantizationConfig({ quantType: "Q4_K_M", computeDtype: "bfloat16" });
  assert.deepEqual(config.toDict(), {
    quant_method: "gguf",
    compute_dtype: "bfloat16",
    quant_type: "Q4_K_M",
  });
  assert.deepEqual(configFromDict(config.toDict()), config);
  assert.deepEqual(
    configFromDict({ quant_method: "gguf", quantType: "Q4_K_M", computeDtype: "bfloat16" }),
    config,
  );
  assert.deepEqual(new GGUFQuantizationConfig().toDict(), {
    quant_method: "gguf",
    compute_dtype: "float32",
  });
});

test("an unknown type, an unknown dtype and no type at all are refused", async () => {
  const quantType = "Q9_K" as GgufMix;
  await rejects(() => new GGUFQuantizationConfig({ quantType }), "quantization_config", /Q4_K/);
  const computeDtype = "int8" as "float32";
  await rejects(() => new GGUFQuantizationConfig({ computeDtype }), "quantization_config");
  const quantizer = new GgufQuantizer(new GGUFQuantizationConfig());
  await rejects(() => quantizer.describe([256, 256]), "quantization_config", /which GGUF type/);
});

test("mixes widen the joint projections of the double blocks, under either name", () => {
  const qkv = [
    "double_blocks.3.img_attn.qkv.weight",
    "double_blocks.18.txt_attn.qkv.weight",
    "transformer_blocks.3.attn.to_q.weight",
    "transformer_blocks.3.attn.add_v_proj.weight",
  ];
  const others = [
    "double_blocks.3.img_attn.proj.weight",
    "single_blocks.3.linear1.weight",
    "transformer_blocks.3.attn.to_out.0.weight",
    "single_transformer_blocks.3.attn.to_q.weight",
  ];
  const wider: Partial<Record<GgufMix, GgufBlockType>> = {
    Q3_K_M: "Q4_K",
    Q3_K_L: "Q4_K",
    Q4_K_M: "Q5_K",
    Q5_K_M: "Q6_K",
  };
  for (
    const [mix, { base }] of Object.entries(GGUF_MIXES) as [GgufMix, { base: GgufBlockType }][]
  ) {
    const typeOf = (name: string) => ggufTypeFor(mix, { name, columns: 256, layers: 0 });
    for (const name of qkv) assert.equal(typeOf(name), wider[mix] ?? base, name);
    for (const name of others) assert.equal(typeOf(name), base, name);
  }
});

test("what enters and leaves a model stays dense, under either name", () => {
  const dense = [
    "img_in",
    "txt_in",
    "time_in.in_layer",
    "vector_in.out_layer",
    "guidance_in.in_layer",
    "final_layer.linear",
    "final_layer.adaLN_modulation.1",
    "x_embedder",
    "context_embedder",
    "time_text_embed.timestep_embedder.linear_1",
    "norm_out.linear",
    "proj_out",
    "enc.blk.0.attn_rel_b",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
  ];
  const quantized = [
    "double_blocks.0.img_mod.lin",
    "single_blocks.0.linear2",
    "transformer_blocks.0.norm1.linear",
    "single_transformer_blocks.0.proj_out",
    "single_transformer_blocks.0.proj_mlp",
    "enc.blk.0.ffn_down",
    "encoder.block.0.layer.1.DenseReluDense.wo",
  ];
  assert.deepEqual(dense.filter((name) => !staysDense(name)), []);
  assert.deepEqual(quantized.filter(staysDense), []);
});

test("a shape of too few elements, of uneven rows or of another rank stays dense", () => {
  const quantizer = new GgufQuantizer(new GGUFQuantizationConfig({ quantType: "Q4_K" }));
  assert.notEqual(quantizer.describe([5, 256]), null);
  assert.equal(quantizer.describe([4, 256]), null);
  assert.equal(quantizer.describe([64, 255]), null);
  assert.equal(quantizer.describe([64, 128]), null);
  assert.equal(quantizer.describe([4096]), null);
  assert.equal(quantizer.describe([16, 16, 3, 256]), null);
});

test("every block type's layout is told from the others'", () => {
  const types: GgufBlockType[] = [...GGUF.formats.map(({ name }) => name)]
    .filter((name) => !/_[SML]$/.test(name)) as GgufBlockType[];
  for (const type of types) {
    const { elements } = ggufTypeInfo(type);
    const tensor = decodeBlocks(type, randomBlocks(type), [64, elements]);
    assert.equal(ggufTypeOfLayout(tensor.layout), type);
  }
});

test("any bytes are read and written back, and rows can be taken on their own", () => {
  for (const type of ["Q2_K", "Q3_K", "Q5_1", "Q6_K", "IQ4_XS", "NVFP4"] as GgufBlockType[]) {
    const { elements, bytes } = ggufTypeInfo(type);
    const blocks = randomBlocks(type);
    const tensor = decodeBlocks(type, blocks, [8, 8 * elements]);
    assert.deepEqual(encodeBlocks(type, tensor), blocks);
    const third = decodeBlocks(type, blocks.slice(8 * bytes * 2, 8 * bytes * 3), [1, 8 * elements]);
    const row = dequantize(tensor).subarray(2 * 8 * elements, 3 * 8 * elements);
    assert.deepEqual(dequantize(third), row);
  }
});

test("a scale that is NaN or infinite is refused, naming the tensor", async () => {
  for (const bits of [0x7c00, 0xfc00, 0x7e00]) {
    const blocks = randomBlocks("Q4_K");
    blocks[144] = bits & 255;
    blocks[145] = bits >> 8;
    const decode = () => decodeBlocks("Q4_K", blocks, [64, 256], "a.weight");
    const error = await rejects(decode, "non_finite_weight", /block 1/);
    assert.equal(error.detail.tensor, "a.weight");
  }
});

test("weights that are not finite, or too large for float16 scales, are refused", async () => {
  const quantizer = new GgufQuantizer(new GGUFQuantizationConfig({ quantType: "Q4_K" }));
  for (const bad of [NaN, Infinity, 1e30]) {
    const values = randomValues(2048, 1);
    values[300] = bad;
    const dense = tensorOf(values, [8, 256]);
    await rejects(
      () => quantizer.quantize("a", dense, () => Promise.resolve()),
      "non_finite_weight",
    );
  }
});

test("another layout is not written as GGUF blocks", async () => {
  const tensor = decodeBlocks("Q4_0", randomBlocks("Q4_0"), [64, 32]);
  await rejects(() => encodeBlocks("IQ4_NL", tensor), "unsupported");
  const layout = { ...tensor.layout, groupSize: 64 };
  const quantizer = new GgufQuantizer(new GGUFQuantizationConfig());
  const weight = { tensor: { ...tensor, layout }, dtype: "float32" } as const;
  await rejects(() => quantizer.write("a", weight), "unsupported");
});

test("float16 scales are rounded as everywhere else, for every code and between", () => {
  for (let code = 0; code < 0x7c00; code++) {
    const value = float16Value(code);
    const next = code === 0x7bff ? 65536 : float16Value(code + 1);
    const middle = Math.fround((value + next) / 2);
    const above = Math.fround(value + (next - value) * 0.75);
    const values = Float32Array.of(value, -value, middle, above);
    const expected = new Uint16Array(
      HostTensor.fromFloat32(values).cast("float16").bytes.slice().buffer,
    );
    assert.deepEqual([...values].map(float16Bits), [...expected]);
  }
});

async function inFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "halftone-gguf-"));
  try {
    await action(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Parts of a Flux with matrices that are quantized, too small, uneven, outer and not matrices. */
const PARTS: NamedTensor[] = [
  ["x_embedder.weight", [256, 64], "bfloat16"],
  ["x_embedder.bias", [256], "bfloat16"],
  ["context_embedder.weight", [256, 96], "float16"],
  ["transformer_blocks.0.norm1.linear.weight", [64, 256], "float32"],
  ["transformer_blocks.0.attn.to_q.weight", [32, 256], "bfloat16"],
  ["transformer_blocks.0.attn.to_k.weight", [32, 256], "bfloat16"],
  ["transformer_blocks.0.attn.to_v.weight", [32, 256], "bfloat16"],
  ["transformer_blocks.0.attn.norm_q.weight", [32], "bfloat16"],
  ["transformer_blocks.0.attn.to_out.0.weight", [64, 100], "bfloat16"],
  ["transformer_blocks.0.ff.net.0.proj.weight", [64, 100], "float32"],
  ["transformer_blocks.0.ff.net.2.weight", [4, 256], "bfloat16"],
].map(([name, shape, dtype], seed) => {
  const size = (shape as number[]).reduce((product, dimension) => product * dimension, 1);
  const tensor = tensorOf(randomValues(size, seed), shape as number[]);
  return { name: name as string, tensor: tensor.cast(dtype as "bfloat16") };
});

test("a file gets the types that the rules say, and metadata that say so", async () => {
  await inFolder(async (folder) => {
    await writeSafetensors(
      `${folder}/a.safetensors`,
      Object.fromEntries(PARTS.map(({ name, tensor }) => [name, tensor])),
    );
    const source = await openCheckpoint(`${folder}/a.safetensors`);
    const options = { quantType: "Q4_K_M", architecture: "flux" } as const;
    await quantizeToGguf(fluxToSingleFile(source), `${folder}/a.gguf`, options);
    await source.close();
    const written = await openCheckpoint(`${folder}/a.gguf`);
    const types = [...written.entries.values()].map(({ name, dtype, ggufType }) => [
      name,
      ggufType ?? dtype,
    ]);
    assert.deepEqual(Object.fromEntries(types), {
      "img_in.weight": "bfloat16",
      "img_in.bias": "float32",
      "txt_in.weight": "float16",
      "double_blocks.0.img_mod.lin.weight": "Q4_K",
      "double_blocks.0.img_attn.qkv.weight": "Q5_K",
      "double_blocks.0.img_attn.norm.query_norm.scale": "float32",
      "double_blocks.0.img_attn.proj.weight": "bfloat16",
      "double_blocks.0.img_mlp.0.weight": "float16",
      "double_blocks.0.img_mlp.2.weight": "float32",
    });
    assert.equal(written.metadata["general.architecture"], "flux");
    await written.close();
  });
});

test("a component folder keeps its names and its config, and cannot be quantized twice", async () => {
  await inFolder(async (folder) => {
    const config = { _class_name: "FluxTransformer2DModel", epsilon: 1e-6 };
    await writeCheckpoint(`${folder}/dense`, config, PARTS);
    const quantizationConfig = new GGUFQuantizationConfig({ quantType: "Q8_0" });
    const written = await quantizeCheckpoint(`${folder}/dense`, `${folder}/q`, {
      quantizationConfig,
    });
    assert.deepEqual(written.files, ["diffusion_pytorch_model.gguf"]);
    assert.deepEqual(await readConfig(`${folder}/q`), await readConfig(`${folder}/dense`));
    const checkpoint = await openCheckpoint(`${folder}/q`);
    assert.deepEqual(
      [...checkpoint.entries.keys()].sort(),
      PARTS.map(({ name }) => name).sort(),
    );
    await checkpoint.close();
    await rejects(
      () => quantizeCheckpoint(`${folder}/q`, `${folder}/qq`, { quantizationConfig }),
      "quantization_config",
    );
  });
});

test("integers, such as packed codes of another method, are not written as GGUF", async () => {
  await inFolder(async (folder) => {
    const tensors = { "a.weight": HostTensor.zeros("uint8", [64, 1]) };
    await writeSafetensors(`${folder}/a.safetensors`, tensors);
    const source = await openCheckpoint(`${folder}/a.safetensors`);
    const options = { quantType: "Q8_0", architecture: "flux" } as const;
    await rejects(() => quantizeToGguf(source, `${folder}/a.gguf`, options), "unsupported");
    await source.close();
  });
});

test("a weight too large for float16 scales is not written either", async () => {
  await inFolder(async (folder) => {
    const values = randomValues(2048, 1);
    values[300] = 1e30;
    await writeSafetensors(`${folder}/a.safetensors`, { "a.weight": tensorOf(values, [8, 256]) });
    const source = await openCheckpoint(`${folder}/a.safetensors`);
    for (const quantType of ["Q4_0", "Q4_1", "Q5_K", "Q6_K", "IQ4_XS"] as const) {
      const options = { quantType, architecture: "flux" } as const;
      await rejects(() => quantizeToGguf(source, `${folder}/a.gguf`, options), "non_finite_weight");
    }
    await source.close();
  });
});

test("an aborted conversion leaves no file", async () => {
  await inFolder(async (folder) => {
    const tensors = Object.fromEntries(PARTS.map(({ name, tensor }) => [name, tensor]));
    await writeSafetensors(`${folder}/a.safetensors`, tensors);
    const source = await openCheckpoint(`${folder}/a.safetensors`);
    const controller = new AbortController();
    await rejects(() =>
      quantizeToGguf(source, `${folder}/a.gguf`, {
        quantType: "Q8_0",
        architecture: "flux",
        signal: controller.signal,
        onProgress: () => controller.abort(),
      }), "aborted");
    await source.close();
    await rejects(() => openCheckpoint(`${folder}/a.gguf`), "missing_file");
  });
});
