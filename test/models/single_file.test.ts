import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type Checkpoint, checkpointFromSources } from "../../src/io/checkpoint.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { fluxFromSingleFile, fluxToSingleFile } from "../../src/models/flux_single_file.ts";
import { ggufFileOf } from "../../src/models/gguf_file.ts";
import { t5FromSingleFile, t5ToSingleFile } from "../../src/models/t5_single_file.ts";
import { memorySource } from "../../src/runtime/byte_source.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../../src/tensor/shape.ts";
import { rejects } from "../io/support.ts";

interface Golden {
  readonly single: Readonly<Record<string, Shape>>;
  readonly diffusers: Readonly<Record<string, { readonly shape: Shape; readonly sha256: string }>>;
}

/** What Diffusers' converter makes of a small model. */
const GOLDEN: Golden = JSON.parse(
  readFileSync(new URL("../goldens/gguf/single_file.json", import.meta.url), "utf8"),
);

/** Tensor k holds 1000 k, 1000 k + 1 ... */
function tensorsOf(shapes: Readonly<Record<string, Shape>>, prefix = "") {
  return new Map(
    Object.entries(shapes).map(([name, shape], k) => {
      const values = Float32Array.from({ length: elementCount(shape) }, (_, i) => 1000 * k + i);
      return [`${prefix}${name}`, HostTensor.fromFloat32(values, shape)];
    }),
  );
}

function checkpointOf(tensors: ReadonlyMap<string, HostTensor>): Promise<Checkpoint> {
  return checkpointFromSources("test", [memorySource(serializeSafetensors(tensors))]);
}

async function contents(checkpoint: Checkpoint) {
  const rows = await Promise.all(
    [...checkpoint.entries.values()].map(async ({ name, shape }) => {
      const { bytes } = await checkpoint.read(name);
      return [name, { shape, sha256: createHash("sha256").update(bytes).digest("hex") }] as const;
    }),
  );
  return Object.fromEntries(rows.sort(([a], [b]) => a < b ? -1 : 1));
}

for (const prefix of ["", "model.diffusion_model."]) {
  test(`tensors of a single file become those of Diffusers' converter, prefix "${prefix}"`, async () => {
    const checkpoint = await checkpointOf(tensorsOf(GOLDEN.single, prefix));
    assert.deepEqual(await contents(fluxFromSingleFile(checkpoint)), GOLDEN.diffusers);
  });
}

test("names of single files and back: every byte and every name", async () => {
  const checkpoint = await checkpointOf(tensorsOf(GOLDEN.single));
  const before = await contents(checkpoint);
  const diffusers = fluxFromSingleFile(checkpoint);
  const again = new Map<string, HostTensor>();
  for (const name of diffusers.entries.keys()) again.set(name, await diffusers.read(name));
  const back = fluxToSingleFile(await checkpointOf(again));
  assert.deepEqual(await contents(back), before);
});

test("a checkpoint that has the wanted names is left as it is", async () => {
  const single = await checkpointOf(tensorsOf(GOLDEN.single));
  assert.equal(fluxToSingleFile(single), single);
  const shapes = Object.entries(GOLDEN.diffusers).map(([name, { shape }]) => [name, shape]);
  const diffusers = await checkpointOf(tensorsOf(Object.fromEntries(shapes)));
  assert.equal(fluxFromSingleFile(diffusers), diffusers);
});

test("rows that do not divide, a missing part and a foreign tensor are refused", async () => {
  const odd = { ...GOLDEN.single, "double_blocks.0.img_attn.qkv.weight": [25, 8] };
  const oddFile = await checkpointOf(tensorsOf(odd));
  await rejects(() => fluxFromSingleFile(oddFile), "tensor_shape_mismatch");
  const shapes = Object.fromEntries(
    Object.entries(GOLDEN.diffusers).map(([name, { shape }]) => [name, shape]),
  );
  const { "transformer_blocks.0.attn.to_k.weight": _, ...partial } = shapes;
  const incomplete = await checkpointOf(tensorsOf(partial));
  const error = await rejects(() => fluxToSingleFile(incomplete), "missing_tensor");
  assert.equal(error.detail.tensor, "transformer_blocks.0.attn.to_k.weight");
  const foreign = await checkpointOf(tensorsOf({ ...shapes, "vae.weight": [2, 2] }));
  await rejects(() => fluxToSingleFile(foreign), "unexpected_tensor");
});

const T5: Readonly<Record<string, Shape>> = {
  "shared.weight": [20, 8],
  "encoder.final_layer_norm.weight": [8],
  ...Object.fromEntries([0, 1].flatMap((block) => {
    const name = `encoder.block.${block}.layer`;
    return [
      ...["q", "k", "v", "o"].map((part) => [`${name}.0.SelfAttention.${part}.weight`, [8, 8]]),
      [`${name}.0.layer_norm.weight`, [8]],
      [`${name}.1.layer_norm.weight`, [8]],
      [`${name}.1.DenseReluDense.wi_0.weight`, [16, 8]],
      [`${name}.1.DenseReluDense.wi_1.weight`, [16, 8]],
      [`${name}.1.DenseReluDense.wo.weight`, [8, 16]],
    ] as [string, Shape][];
  })),
  "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": [6, 2],
};

/** As llama.cpp's convert_hf_to_gguf.py names an encoder. */
const LLAMA_NAMES = [
  "enc.blk.0.attn_k.weight",
  "enc.blk.0.attn_norm.weight",
  "enc.blk.0.attn_o.weight",
  "enc.blk.0.attn_q.weight",
  "enc.blk.0.attn_rel_b.weight",
  "enc.blk.0.attn_v.weight",
  "enc.blk.0.ffn_down.weight",
  "enc.blk.0.ffn_gate.weight",
  "enc.blk.0.ffn_norm.weight",
  "enc.blk.0.ffn_up.weight",
];

test("a T5 gets llama.cpp's names, and its own back", async () => {
  const checkpoint = await checkpointOf(tensorsOf(T5));
  const llama = t5ToSingleFile(checkpoint);
  const names = [...llama.entries.keys()].sort();
  assert.deepEqual(names.filter((name) => name.startsWith("enc.blk.0.")), LLAMA_NAMES);
  assert.deepEqual(names.slice(-2), ["enc.output_norm.weight", "token_embd.weight"]);
  const renamed = new Map<string, HostTensor>();
  for (const name of names) renamed.set(name, await llama.read(name));
  const back = t5FromSingleFile(await checkpointOf(renamed));
  assert.deepEqual(await contents(back), await contents(checkpoint));
});

test("a T5 without a gate keeps its single projection", async () => {
  const name = "encoder.block.0.layer.1.DenseReluDense.wi.weight";
  const checkpoint = await checkpointOf(tensorsOf({ "shared.weight": [2, 2], [name]: [4, 2] }));
  const llama = t5ToSingleFile(checkpoint);
  assert.ok(llama.entries.has("enc.blk.0.ffn_up.weight"));
  const renamed = new Map<string, HostTensor>();
  for (const entry of llama.entries.keys()) renamed.set(entry, await llama.read(entry));
  assert.ok(t5FromSingleFile(await checkpointOf(renamed)).entries.has(name));
});

test("an embedding stored under its alias alone is written; the alias beside it is not", async () => {
  const alias = "encoder.embed_tokens.weight";
  const alone = t5ToSingleFile(await checkpointOf(tensorsOf({ [alias]: [2, 2] })));
  assert.deepEqual([...alone.entries.keys()], ["token_embd.weight"]);
  const both = await checkpointOf(tensorsOf({ [alias]: [2, 2], "shared.weight": [2, 2] }));
  assert.deepEqual([...t5ToSingleFile(both).entries.keys()], ["token_embd.weight"]);
});

test("what a GGUF file holds is told by its tensors", async () => {
  assert.equal(ggufFileOf(await checkpointOf(tensorsOf(GOLDEN.single))).architecture, "flux");
  assert.equal(ggufFileOf(await checkpointOf(tensorsOf(T5))).architecture, "t5encoder");
  const other = await checkpointOf(tensorsOf({ "decoder.conv_in.weight": [2, 2] }));
  await rejects(() => ggufFileOf(other), "unsupported");
});
