import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { checkFinite } from "../../src/io/finite.ts";
import { firstNonFinite } from "../../src/tensor/finite.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { parseShardIndex } from "../../src/io/shard_index.ts";
import { fromFloat32 } from "../../src/tensor/convert.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";
import { inFolder, rejects } from "./support.ts";

const BASE = "diffusion_pytorch_model";
const values = (...numbers: number[]) => HostTensor.fromFloat32(Float32Array.from(numbers));
const fileOf = (tensors: Record<string, HostTensor>) => serializeSafetensors(tensors);
const SHARDS = [1, 2].map((number) => `${BASE}-0000${number}-of-00002.safetensors`);

/** Writes files into a folder: text, bytes, or an object as JSON. */
async function fill(folder: string, files: Record<string, string | Uint8Array | object>) {
  for (const [name, content] of Object.entries(files)) {
    const raw = typeof content === "string" || content instanceof Uint8Array;
    await writeFile(`${folder}/${name}`, raw ? content : JSON.stringify(content));
  }
}

const indexOf = (weightMap: Record<string, unknown>) => ({
  metadata: { total_size: 8 },
  weight_map: weightMap,
});

/** A folder with two shards; `change` replaces or, with undefined, leaves out files. */
function sharded(change: Record<string, string | Uint8Array | object | undefined> = {}) {
  const files = {
    [`${BASE}.safetensors.index.json`]: indexOf({ a: SHARDS[0], b: SHARDS[1] }),
    [SHARDS[0]]: fileOf({ a: values(1) }),
    [SHARDS[1]]: fileOf({ b: values(2) }),
    ...change,
  };
  const present = Object.entries(files).filter(([, content]) => content !== undefined);
  return Object.fromEntries(present) as Record<string, string | Uint8Array | object>;
}

test("reads a folder with one file, by either base name, and the file itself", async () => {
  for (const base of [BASE, "model"] as const) {
    await inFolder(async (folder) => {
      await fill(folder, { [`${base}.safetensors`]: fileOf({ x: values(1, 2) }) });
      for (const path of [folder, `${folder}/`, `${folder}/${base}.safetensors`]) {
        const checkpoint = await openCheckpoint(path);
        assert.deepEqual([...(await checkpoint.read("x")).toFloat32()], [1, 2]);
        assert.deepEqual({ ...checkpoint.metadata }, { format: "pt" });
        await checkpoint.close();
      }
    });
  }
});

test("a tensor can be read into shared memory", async () => {
  await inFolder(async (folder) => {
    await fill(folder, { "model.safetensors": fileOf({ x: values(3) }) });
    const checkpoint = await openCheckpoint(folder);
    const tensor = await checkpoint.read("x", { shared: true });
    assert.ok(tensor.bytes.buffer instanceof SharedArrayBuffer);
    assert.deepEqual([...tensor.toFloat32()], [3]);
    await checkpoint.close();
  });
});

test("a tensor can be read into scratch memory, where the next one takes its place", async () => {
  await inFolder(async (folder) => {
    await fill(folder, { "model.safetensors": fileOf({ a: values(1, 2), b: values(3, 4) }) });
    const checkpoint = await openCheckpoint(folder);
    const scratch = new ScratchBytes();
    const a = await checkpoint.read("a", { scratch });
    assert.deepEqual([...a.toFloat32()], [1, 2]);
    scratch.reset();
    const b = await checkpoint.read("b", { scratch });
    assert.deepEqual([...b.toFloat32()], [3, 4]);
    assert.equal(b.bytes.buffer, a.bytes.buffer);
    await checkpoint.close();
  });
});

test("reads a sharded checkpoint and says which file a tensor is in", async () => {
  await inFolder(async (folder) => {
    await fill(folder, sharded());
    for (const path of [folder, `${folder}/${BASE}.safetensors.index.json`]) {
      const checkpoint = await openCheckpoint(path);
      assert.deepEqual([...checkpoint.entries.keys()], ["a", "b"]);
      assert.equal(checkpoint.entries.get("b")?.file, `${folder}/${SHARDS[1]}`);
      assert.deepEqual([...(await checkpoint.read("b")).toFloat32()], [2]);
      await checkpoint.close();
    }
  });
});

test("a missing shard is named", async () => {
  await inFolder(async (folder) => {
    await fill(folder, sharded({ [SHARDS[1]]: undefined }));
    const error = await rejects(() => openCheckpoint(folder), "missing_file", /00002-of-00002/);
    assert.equal(error.detail.file, `${folder}/${SHARDS[1]}`);
  });
});

test("a tensor that its shard lacks is named", async () => {
  await inFolder(async (folder) => {
    const index = indexOf({ a: SHARDS[0], b: SHARDS[1], c: SHARDS[1] });
    await fill(folder, sharded({ [`${BASE}.safetensors.index.json`]: index }));
    const error = await rejects(() => openCheckpoint(folder), "missing_tensor", /shard/);
    assert.equal(error.detail.tensor, "c");
  });
});

test("a tensor in another shard than the index says is refused", async () => {
  await inFolder(async (folder) => {
    const index = indexOf({ a: SHARDS[1], b: SHARDS[1] });
    await fill(folder, sharded({ [`${BASE}.safetensors.index.json`]: index, other: "" }));
    await writeFile(`${folder}/${SHARDS[1]}`, fileOf({ b: values(2) }));
    await rejects(() => openCheckpoint(folder), "missing_tensor");
  });
});

test("a tensor in two shards is refused", async () => {
  await inFolder(async (folder) => {
    await fill(folder, sharded({ [SHARDS[1]]: fileOf({ a: values(9), b: values(2) }) }));
    const error = await rejects(() => openCheckpoint(folder), "unexpected_tensor", /two shards/);
    assert.equal(error.detail.tensor, "a");
  });
});

test("a truncated shard is refused and named", async () => {
  await inFolder(async (folder) => {
    await fill(folder, sharded({ [SHARDS[0]]: fileOf({ a: values(1) }).slice(0, -1) }));
    const error = await rejects(() => openCheckpoint(folder), "invalid_safetensors");
    assert.equal(error.detail.file, `${folder}/${SHARDS[0]}`);
  });
});

const UNSAFE_NAMES = [
  "../model.safetensors",
  "..",
  ".",
  "",
  "/etc/passwd",
  "/tmp/model.safetensors",
  "sub/model.safetensors",
  "..\\model.safetensors",
  "C:\\model.safetensors",
  "C:model.safetensors",
  "model.safetensors\0.png",
  "a\n.safetensors",
  ".hidden.safetensors",
  `${"x".repeat(300)}.safetensors`,
];

for (const name of UNSAFE_NAMES) {
  test(`refuses the shard name ${JSON.stringify(name.slice(0, 40))}`, async () => {
    await rejects(
      () => parseShardIndex(JSON.stringify(indexOf({ a: name })), "x.index.json"),
      "unsafe_path",
      /out of the model folder/,
    );
  });
}

test("a shard name that means something to URLs is a plain name", () => {
  const text = JSON.stringify(indexOf({ a: "%2e%2e.safetensors" }));
  assert.deepEqual(parseShardIndex(text).shards, ["%2e%2e.safetensors"]);
});

test("a shard that is a link out of the folder is refused", async () => {
  await inFolder(async (folder) => {
    await mkdir(`${folder}/model`);
    await fill(folder, { "secret.safetensors": fileOf({ b: values(2) }) });
    await fill(`${folder}/model`, sharded({ [SHARDS[1]]: undefined }));
    await symlink(`${folder}/secret.safetensors`, `${folder}/model/${SHARDS[1]}`);
    await rejects(() => openCheckpoint(`${folder}/model`), "unsafe_path", /a link/);
  });
});

test("links of the Hugging Face cache into its blobs are followed", async () => {
  await inFolder(async (root) => {
    const model = `${root}/models--owner--name`;
    const folder = `${model}/snapshots/${"0".repeat(40)}/transformer`;
    await mkdir(folder, { recursive: true });
    await mkdir(`${model}/blobs`);
    await fill(folder, sharded({ [SHARDS[1]]: undefined }));
    await fill(`${model}/blobs`, { abc: fileOf({ b: values(2) }) });
    await symlink("../../../blobs/abc", `${folder}/${SHARDS[1]}`);
    const checkpoint = await openCheckpoint(folder);
    assert.deepEqual([...(await checkpoint.read("b")).toFloat32()], [2]);
    await checkpoint.close();
  });
});

const BAD_INDEXES: [string, string][] = [
  ["no JSON", "x"],
  ["a list", "[]"],
  ["null", "null"],
  ["no weight_map", "{}"],
  ["a weight_map that is a list", '{"weight_map":[]}'],
  ["a weight_map that is null", '{"weight_map":null}'],
  ["a shard that is a number", '{"weight_map":{"a":1}}'],
  ["a shard that is a list", '{"weight_map":{"a":["x.safetensors"]}}'],
  ["a tensor twice", '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}'],
  ["the weight_map twice", '{"weight_map":{},"weight_map":{}}'],
  [
    "257 shards",
    JSON.stringify(indexOf(
      Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`t${i}`, `${i}.safetensors`])),
    )),
  ],
];

for (const [name, text] of BAD_INDEXES) {
  test(`refuses an index with ${name}`, async () => {
    await rejects(() => parseShardIndex(text, "x.index.json"), "invalid_safetensors", /index/);
  });
}

test("shards that are pickles are refused by their name", async () => {
  const text = JSON.stringify(indexOf({ a: "pytorch_model-00001-of-00002.bin" }));
  await rejects(() => parseShardIndex(text), "unsupported_file", /not safetensors/);
});

test("a variant is found in its own names, alone and sharded, old and new", async () => {
  await inFolder(async (folder) => {
    await fill(folder, {
      [`${BASE}.safetensors`]: fileOf({ x: values(1) }),
      [`${BASE}.fp16.safetensors`]: fileOf({ x: values(2) }),
    });
    const checkpoint = await openCheckpoint(folder, { variant: "fp16" });
    assert.deepEqual([...(await checkpoint.read("x")).toFloat32()], [2]);
    await checkpoint.close();
  });
  const infixes = [".safetensors.index.fp16.json", ".fp16.safetensors.index.json"];
  const shardNames = [
    `model.fp16-00001-of-00001.safetensors`,
    `model-00001-of-00001.fp16.safetensors`,
  ];
  for (const [i, infix] of infixes.entries()) {
    await inFolder(async (folder) => {
      await fill(folder, {
        [`model${infix}`]: indexOf({ x: shardNames[i] }),
        [shardNames[i]]: fileOf({ x: values(3) }),
      });
      const checkpoint = await openCheckpoint(folder, { variant: "fp16" });
      assert.deepEqual([...(await checkpoint.read("x")).toFloat32()], [3]);
      await checkpoint.close();
    });
  }
});

test("an absent variant is refused, naming those there are, unless plain files may stand in", async () => {
  await inFolder(async (folder) => {
    await fill(folder, { "model.safetensors": fileOf({ x: values(1) }) });
    await rejects(() => openCheckpoint(folder, { variant: "fp16" }), "missing_file", /no variants/);
    const checkpoint = await openCheckpoint(folder, { variant: "fp16", variantFallback: true });
    assert.equal(checkpoint.entries.size, 1);
    await checkpoint.close();
  });
  await inFolder(async (folder) => {
    await fill(folder, {
      "model.bf16.safetensors": fileOf({}),
      "model.fp16.safetensors": fileOf({}),
    });
    await rejects(() => openCheckpoint(folder, { variant: "fp8" }), "missing_file", /bf16, fp16/);
    await rejects(() => openCheckpoint(folder), "missing_file", /choose one: bf16, fp16/);
  });
});

test("a folder without weights, with pickles, or with several files says so", async () => {
  await inFolder(async (folder) => {
    await rejects(() => openCheckpoint(folder), "missing_file", /weights in the folder/);
    await fill(folder, { "pytorch_model.bin": "x" });
    await rejects(() => openCheckpoint(folder), "unsupported_file", /safe_serialization/);
    await fill(folder, { "one.safetensors": fileOf({}), "two.safetensors": fileOf({}) });
    await rejects(() => openCheckpoint(folder), "unsupported_file");
  });
  await rejects(() => openCheckpoint("/nowhere/at/all"), "missing_file", /nothing at this path/);
});

test("a folder with a single file of any name is read", async () => {
  await inFolder(async (folder) => {
    await fill(folder, { "flux1-dev.safetensors": fileOf({ x: values(1) }) });
    const checkpoint = await openCheckpoint(folder);
    assert.equal(checkpoint.entries.size, 1);
    await checkpoint.close();
  });
});

test("a pickle under a safetensors name is refused by its first bytes", async () => {
  await inFolder(async (folder) => {
    await fill(folder, {
      "model.safetensors": Uint8Array.of(0x80, 2, 0x7d, 0x71, 0, 0x28, 0x58, 1),
    });
    const error = await rejects(() => openCheckpoint(folder), "unsupported_file", /pickle/);
    assert.equal(error.detail.file, `${folder}/model.safetensors`);
  });
});

test("a closed checkpoint and an absent tensor are refused", async () => {
  await inFolder(async (folder) => {
    await fill(folder, { "model.safetensors": fileOf({ x: values(1) }) });
    const checkpoint = await openCheckpoint(folder);
    const error = await rejects(() => checkpoint.read("y"), "missing_tensor");
    assert.equal(error.detail.tensor, "y");
    await checkpoint.close();
    await checkpoint.close();
    await rejects(() => checkpoint.read("x"), "closed");
  });
});

test("a file that shrinks while it is open is an error, not zeros", async () => {
  await inFolder(async (folder) => {
    const file = fileOf({ x: values(1, 2, 3, 4) });
    await fill(folder, { "model.safetensors": file });
    const checkpoint = await openCheckpoint(folder);
    await writeFile(`${folder}/model.safetensors`, file.slice(0, -4));
    await rejects(() => checkpoint.read("x"), "missing_file", /past the end/);
    await checkpoint.close();
  });
});

test("weights with NaN or infinity are refused in every float type, with their place", async () => {
  await inFolder(async (folder) => {
    for (const [i, bad] of [NaN, Infinity, -Infinity].entries()) {
      const tensor = values(0, 1, bad, 2);
      await fill(folder, { "model.safetensors": fileOf({ good: values(1), bad: tensor }) });
      const checkpoint = await openCheckpoint(folder);
      await checkpoint.read("good");
      const error = await rejects(
        () => checkpoint.read("bad"),
        "non_finite_weight",
        /flat index 2/,
      );
      assert.equal(error.detail.tensor, "bad", `${i}`);
      await checkpoint.close();
      const tolerant = await openCheckpoint(folder, { allowNonFinite: true });
      assert.deepEqual([...(await tolerant.read("bad")).toFloat32()], [0, 1, bad, 2]);
      await tolerant.close();
    }
  });
});

test("NaN is found at any place of any float type, and never in ordinary values", async () => {
  const types: DType[] = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"];
  for (const dtype of types) {
    for (let length = 1; length < 12; length++) {
      for (let place = 0; place < length; place++) {
        const numbers = Float32Array.from({ length }, (_, i) => [-448, 2 ** -9, -0][i % 3]);
        const tensor = () => new HostTensor(dtype, [length], fromFloat32(dtype, numbers));
        assert.equal(firstNonFinite(tensor()), -1, dtype);
        numbers[place] = NaN;
        assert.equal(firstNonFinite(tensor()), place, dtype);
        numbers[length - 1] = NaN;
        assert.equal(firstNonFinite(tensor()), place, dtype);
      }
    }
  }
  const double = new HostTensor("float64", [2], new Uint8Array(Float64Array.of(1e300, NaN).buffer));
  assert.equal(firstNonFinite(double), 1);
  await rejects(() => checkFinite(double, "w"), "non_finite_weight");
  assert.equal(firstNonFinite(new HostTensor("int32", [1], new Uint8Array(4).fill(255))), -1);
});

test("of all 16-bit codes, exactly those that decode to NaN or infinity are found", () => {
  for (const dtype of ["float16", "bfloat16"] as const) {
    const codes = Uint16Array.from({ length: 65536 }, (_, code) => code);
    for (let code = 0; code < 65536; code++) {
      // Beside neighbours of all ones, to show that no carry crosses over.
      const pair = new Uint8Array(Uint16Array.of(0x83ff, codes[code], 0x7bff & 0xff7f).buffer);
      const tensor = new HostTensor(dtype, [3], pair);
      const expected = Number.isFinite(tensor.toFloat32()[1]) ? -1 : 1;
      if (firstNonFinite(tensor) !== expected) assert.fail(`${dtype} code ${code}`);
    }
  }
});

test("reads a config, and refuses what is no JSON object", async () => {
  await inFolder(async (folder) => {
    await rejects(() => readConfig(folder), "missing_file");
    for (const text of ["", "[]", "null", "1", "{", '{"a":1,"a":2}', '{"a":NaN}']) {
      await fill(folder, { "config.json": text });
      await rejects(() => readConfig(folder), "invalid_config");
    }
    await fill(folder, { "config.json": Uint8Array.of(0x7b, 0xff, 0x7d) });
    await rejects(() => readConfig(folder), "invalid_config", /UTF-8/);
    await fill(folder, { "config.json": " ".repeat(2 ** 20) + "{}" });
    await rejects(() => readConfig(folder), "invalid_config", /so large/);
    await fill(folder, { "config.json": '{"num_layers":2}' });
    assert.deepEqual(await readConfig(folder), { num_layers: 2 });
  });
});
