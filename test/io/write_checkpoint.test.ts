import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { CheckpointWriter } from "../../src/io/checkpoint_writer.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import {
  copyFolder,
  type NamedTensor,
  writeCheckpoint,
  writeModelFolder,
  writeSafetensors,
} from "../../src/io/write_checkpoint.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { inFolder, namesIn, rejects } from "./support.ts";

const ramp = (length: number, start = 0) =>
  HostTensor.fromFloat32(Float32Array.from({ length }, (_, i) => start + i));

/** Tensors of 40 bytes each. */
const five: NamedTensor[] = ["e", "d", "c", "b", "a"].map((name, i) => ({
  name,
  tensor: ramp(10, i),
}));

async function readAll(path: string): Promise<Record<string, number[]>> {
  const checkpoint = await openCheckpoint(path);
  const found: Record<string, number[]> = {};
  for (const name of checkpoint.entries.keys()) {
    found[name] = [...(await checkpoint.read(name)).toFloat32()];
  }
  await checkpoint.close();
  return found;
}

const expected = Object.fromEntries(
  five.map(({ name, tensor }) => [name, [...tensor.toFloat32()]]),
);

test("a small checkpoint is one file, equal to the one written in memory, and a config", async () => {
  await inFolder(async (folder) => {
    const written = await writeCheckpoint(folder, { b: 1, a: { d: 2, c: [3] } }, five);
    assert.deepEqual(written.files, ["diffusion_pytorch_model.safetensors"]);
    assert.equal(written.totalSize, 200);
    assert.deepEqual(await namesIn(folder), ["config.json", ...written.files]);
    assert.deepEqual(
      new Uint8Array(await readFile(`${folder}/${written.files[0]}`)),
      serializeSafetensors(new Map(five.map(({ name, tensor }) => [name, tensor]))),
    );
    const config = await readFile(`${folder}/config.json`, "utf8");
    assert.equal(
      config,
      '{\n  "a": {\n    "c": [\n      3\n    ],\n    "d": 2\n  },\n  "b": 1\n}\n',
    );
    assert.deepEqual(await readConfig(folder), { b: 1, a: { d: 2, c: [3] } });
  });
});

test("a large checkpoint is split as Diffusers splits it, with its index", async () => {
  await inFolder(async (folder) => {
    const written = await writeCheckpoint(folder, {}, five, { maxShardSize: 80 });
    const shards = [1, 2, 3].map((n) => `diffusion_pytorch_model-0000${n}-of-00003.safetensors`);
    const index = "diffusion_pytorch_model.safetensors.index.json";
    assert.deepEqual(written.files, [...shards, index]);
    assert.deepEqual(await namesIn(folder), ["config.json", ...written.files].sort());
    const text = await readFile(`${folder}/${index}`, "utf8");
    assert.equal(text, `${JSON.stringify(JSON.parse(text), null, 2)}\n`);
    assert.deepEqual(JSON.parse(text), {
      metadata: { total_size: 200 },
      weight_map: { a: shards[2], b: shards[1], c: shards[1], d: shards[0], e: shards[0] },
    });
    assert.deepEqual(await readAll(folder), expected);
  });
});

test("a tensor larger than a shard gets one of its own", async () => {
  await inFolder(async (folder) => {
    const tensors = [five[0], { name: "large", tensor: ramp(100) }, five[1]];
    const { files } = await writeCheckpoint(folder, {}, tensors, { maxShardSize: 80 });
    assert.equal(files.length, 4);
    assert.equal((await readAll(folder)).large[99], 99);
  });
});

test("other base names and variants are in the names", async () => {
  await inFolder(async (folder) => {
    const options = { baseName: "model", variant: "fp16" } as const;
    const single = await writeCheckpoint(folder, {}, five, options);
    assert.deepEqual(single.files, ["model.fp16.safetensors"]);
    const many = await writeCheckpoint(folder, {}, five, { ...options, maxShardSize: 120 });
    assert.deepEqual(many.files, [
      "model.fp16-00001-of-00002.safetensors",
      "model.fp16-00002-of-00002.safetensors",
      "model.safetensors.index.fp16.json",
    ]);
    const checkpoint = await openCheckpoint(folder, { variant: "fp16" });
    assert.equal(checkpoint.entries.size, 5);
    await checkpoint.close();
  });
});

test("saving again removes the files of the earlier save and no others", async () => {
  await inFolder(async (folder) => {
    await writeFile(`${folder}/notes.safetensors.txt`, "mine");
    await writeCheckpoint(folder, {}, five, { maxShardSize: 80 });
    await writeCheckpoint(folder, {}, five, { maxShardSize: 120 });
    assert.deepEqual(await readAll(folder), expected);
    await writeCheckpoint(folder, {}, five);
    assert.deepEqual(await namesIn(folder), [
      "config.json",
      "diffusion_pytorch_model.safetensors",
      "notes.safetensors.txt",
    ]);
  });
});

test("a stream that fails leaves no files, and what stood there before stays", async () => {
  await inFolder(async (folder) => {
    await writeCheckpoint(folder, { old: true }, five);
    const before = await namesIn(folder);
    async function* failing() {
      yield* five.slice(0, 3);
      await Promise.resolve();
      throw new Error("the source broke");
    }
    await assert.rejects(
      () => writeCheckpoint(folder, {}, failing(), { maxShardSize: 80 }),
      /broke/,
    );
    assert.deepEqual(await namesIn(folder), before);
    assert.deepEqual(await readConfig(folder), { old: true });
    assert.deepEqual(await readAll(folder), expected);
  });
});

test("one name twice is refused", async () => {
  await inFolder(async (folder) => {
    const twice = [five[0], five[0]];
    await rejects(() => writeCheckpoint(folder, {}, twice), "invalid_argument", /one name/);
    const reserved = [{ name: "__metadata__", tensor: ramp(1) }];
    await rejects(() => writeCheckpoint(folder, {}, reserved), "invalid_argument");
    assert.deepEqual(await namesIn(folder), []);
  });
});

test("tensors are taken one at a time", async () => {
  await inFolder(async (folder) => {
    let alive = 0;
    let most = 0;
    function* counted(): Generator<NamedTensor> {
      for (const { name, tensor } of five) {
        alive++;
        most = Math.max(most, alive);
        yield { name, tensor };
        alive--;
      }
    }
    await writeCheckpoint(folder, {}, counted());
    assert.equal(most, 1);
  });
});

test("a checkpoint without tensors is a file without tensors", async () => {
  await inFolder(async (folder) => {
    await writeCheckpoint(folder, {}, []);
    assert.deepEqual(await readAll(folder), {});
  });
});

test("data in shared memory, empty tensors and odd types are written as they are", async () => {
  await inFolder(async (folder) => {
    const shared = HostTensor.zeros("bfloat16", [3], { shared: true });
    shared.bytes.fill(0x3f);
    const tensors = {
      shared,
      empty: HostTensor.zeros("int64", [0, 5]),
      flag: ramp(1).cast("bool"),
    };
    const writer = new CheckpointWriter(folder);
    for (const [name, tensor] of Object.entries(tensors)) await writer.add(name, tensor);
    await writer.finish();
    await writeSafetensors(`${folder}/same.safetensors`, tensors);
    const [a, b] = await Promise.all(
      ["diffusion_pytorch_model", "same"].map((name) => readFile(`${folder}/${name}.safetensors`)),
    );
    assert.deepEqual(a, b);
  });
});

/** A model folder with two components and a tokenizer. */
async function makeModel(folder: string): Promise<void> {
  for (const name of ["transformer", "vae", "tokenizer"]) {
    await mkdir(`${folder}/${name}`, { recursive: true });
  }
  await writeFile(`${folder}/model_index.json`, '{"_class_name":"FluxPipeline"}');
  await writeFile(`${folder}/tokenizer/merges.txt`, "#version: 0.2\n");
  await writeFile(`${folder}/tokenizer/.spool.1.part`, "left over");
  await writeCheckpoint(`${folder}/vae`, { z: 1 }, five);
  await writeCheckpoint(`${folder}/transformer`, { z: 2 }, five);
}

test("a model folder is copied except the components that are written anew", async () => {
  await inFolder(async (root) => {
    await makeModel(`${root}/source`);
    await writeModelFolder(`${root}/source`, `${root}/target/`, ["transformer"], async (folder) => {
      await writeCheckpoint(`${folder}/transformer`, { z: 3 }, [{ name: "n", tensor: ramp(2) }]);
    });
    assert.deepEqual(await namesIn(root), ["source", "target"]);
    assert.deepEqual(await namesIn(`${root}/target`), [
      "model_index.json",
      "tokenizer",
      "transformer",
      "vae",
    ]);
    assert.deepEqual(await namesIn(`${root}/target/tokenizer`), ["merges.txt"]);
    assert.deepEqual(await readAll(`${root}/target/transformer`), { n: [0, 1] });
    assert.deepEqual(await readAll(`${root}/target/vae`), expected);
  });
});

test("a model folder that fails half-way leaves nothing, and one that is there is not overwritten", async () => {
  await inFolder(async (root) => {
    await makeModel(`${root}/source`);
    const failing = () => Promise.reject(new Error("no more"));
    await assert.rejects(() => writeModelFolder(`${root}/source`, `${root}/target`, [], failing));
    assert.deepEqual(await namesIn(root), ["source"]);
    const nothing = () => Promise.resolve();
    await rejects(
      () => writeModelFolder(`${root}/source`, `${root}/source`, [], nothing),
      "write_failed",
      /not empty/,
    );
  });
});

test("folders nested without end are refused", async () => {
  await inFolder(async (root) => {
    await mkdir(`${root}/a/${"b/".repeat(12)}`, { recursive: true });
    await rejects(() => copyFolder(`${root}/a`, `${root}/c`), "unsupported_file", /so deep/);
  });
});
