import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { checkpointFromSources, openCheckpoint } from "../../src/io/checkpoint.ts";
import { viewCheckpoint } from "../../src/io/checkpoint_view.ts";
import { parseGgufHeader } from "../../src/io/gguf.ts";
import { serializeGguf } from "../../src/io/gguf_writer.ts";
import { writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { type ByteSource, memorySource } from "../../src/runtime/byte_source.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { inFolder, rejects } from "./support.ts";

/** Written by gguf-py, with every type of metadata. */
const CONTAINER = new Uint8Array(
  readFileSync(new URL("../goldens/gguf/container.gguf", import.meta.url)),
);

test("a file by gguf-py is read: every type of metadata, plain tensors and blocks", () => {
  const header = parseGgufHeader(CONTAINER, CONTAINER.length)!;
  const values = Object.fromEntries([...header.metadata].map(([key, { value }]) => [key, value]));
  assert.deepEqual(values, {
    "general.architecture": "flux",
    "general.quantization_version": 2,
    "values.uint8": 200,
    "values.int8": -100,
    "values.uint16": 60_000,
    "values.int16": -30_000,
    "values.uint32": 4_000_000_000,
    "values.int32": -2_000_000_000,
    "values.float32": Math.fround(0.1),
    "values.uint64": 2n ** 63n + 1n,
    "values.int64": -(2n ** 62n) - 1n,
    "values.float64": 0.1,
    "values.bool": true,
    "values.string": "Übung: 半",
    "values.strings": ["a", "", "ü"],
    "values.numbers": [1, -2, 3],
  });
  const tensors = [...header.entries.values()].map(({ name, type, shape }) => [
    name,
    type.name,
    ...shape,
  ]);
  assert.deepEqual(tensors, [
    ["plain.f32", "F32", 2, 3],
    ["plain.f16", "F16", 3, 2],
    ["vector", "F32", 5],
    ["blocks.Q4_0", "Q4_0", 2, 256],
    ["blocks.Q8_0", "Q8_0", 2, 256],
    ["blocks.Q4_K", "Q4_K", 2, 256],
  ]);
});

test("the same content is written with the same bytes as by gguf-py", () => {
  const { entries, metadata } = parseGgufHeader(CONTAINER, CONTAINER.length)!;
  const tensors = [...entries.values()].map(({ name, type, shape, offset, bytes }) => ({
    name,
    type: type.name,
    shape,
    data: CONTAINER.slice(offset, offset + bytes),
  }));
  assert.deepEqual(serializeGguf(tensors, [...metadata]), CONTAINER);
});

test("as a checkpoint, blocks are rows of bytes with their type beside them", async () => {
  const checkpoint = await checkpointFromSources("x.gguf", [memorySource(CONTAINER)]);
  const { dtype, shape, bytes, ggufType } = checkpoint.entries.get("blocks.Q4_K")!;
  assert.deepEqual([dtype, shape, bytes, ggufType], ["uint8", [2, 144], 288, "Q4_K"]);
  assert.equal(checkpoint.entries.get("plain.f16")!.dtype, "float16");
  assert.equal(checkpoint.entries.get("plain.f16")!.ggufType, undefined);
  assert.equal(checkpoint.metadata["general.architecture"], "flux");
  const whole = await checkpoint.read("blocks.Q4_K");
  const second = await checkpoint.readRows("blocks.Q4_K", 1, 2);
  assert.deepEqual(second.shape, [1, 144]);
  assert.deepEqual(second.bytes, whole.bytes.slice(144));
});

test("rows that a tensor lacks are refused", async () => {
  const checkpoint = await checkpointFromSources("x.gguf", [memorySource(CONTAINER)]);
  for (const [start, end] of [[-1, 1], [0, 3], [2, 1], [0.5, 1], [0, NaN]]) {
    await rejects(() => checkpoint.readRows("plain.f32", start, end), "invalid_argument");
  }
  await rejects(() => checkpoint.readRows("absent", 0, 1), "missing_tensor");
});

test("a header longer than the first read is read on, and no more than needed", async () => {
  const value = "x".repeat(2 ** 20);
  const file = serializeGguf(
    [{ name: "a", type: "I8", shape: [2 ** 22], data: new Uint8Array(2 ** 22) }],
    [["a", { type: "string", value }], ["b", { type: "string", value: "end" }]],
  );
  let most = 0;
  const source: ByteSource = {
    ...memorySource(file),
    read: (offset, length, into) => {
      most = Math.max(most, offset + length);
      return memorySource(file).read(offset, length, into);
    },
  };
  const checkpoint = await checkpointFromSources("x.gguf", [source]);
  assert.equal(checkpoint.metadata.b, "end");
  assert.ok(most <= 2 ** 21, `${most}`);
});

test("a folder with a single GGUF file is a checkpoint; beside safetensors it is left alone", async () => {
  await inFolder(async (folder) => {
    await writeFile(`${folder}/anything.gguf`, CONTAINER);
    const alone = await openCheckpoint(folder);
    assert.equal(alone.entries.size, 6);
    await alone.close();
    await writeSafetensors(`${folder}/model.safetensors`, { a: HostTensor.zeros("int8", [1]) });
    const both = await openCheckpoint(folder);
    assert.deepEqual([...both.entries.keys()], ["a"]);
    await both.close();
  });
});

const MATRIX = new HostTensor("uint8", [4, 3], Uint8Array.from({ length: 12 }, (_, i) => i));

test("a view takes tensors apart and puts them together by rows", async () => {
  await inFolder(async (folder) => {
    const other = new HostTensor("uint8", [1, 3], Uint8Array.of(90, 91, 92));
    await writeSafetensors(`${folder}/a.safetensors`, { matrix: MATRIX, other });
    const view = viewCheckpoint(await openCheckpoint(folder), [
      { name: "middle", parts: [{ source: "matrix", start: 1, end: 3 }] },
      { name: "whole", parts: [{ source: "matrix", start: 0, end: 4 }] },
      {
        name: "swapped",
        parts: [{ source: "matrix", start: 2, end: 4 }, { source: "matrix", start: 0, end: 2 }],
      },
      {
        name: "joined",
        parts: [{ source: "other", start: 0, end: 1 }, { source: "matrix", start: 3, end: 4 }],
      },
    ]);
    const bytes = async (name: string) => [...(await view.read(name)).bytes];
    assert.deepEqual(view.entries.get("swapped")!.shape, [4, 3]);
    assert.deepEqual(view.entries.get("joined")!.bytes, 6);
    assert.deepEqual(await bytes("middle"), [3, 4, 5, 6, 7, 8]);
    assert.deepEqual(await bytes("whole"), [...MATRIX.bytes]);
    assert.deepEqual(await bytes("swapped"), [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
    assert.deepEqual(await bytes("joined"), [90, 91, 92, 9, 10, 11]);
    assert.deepEqual([...(await view.readRows("middle", 1, 2)).bytes], [6, 7, 8]);
    const shared = await view.read("joined", { shared: true });
    assert.ok(shared.bytes.buffer instanceof SharedArrayBuffer);
    const rows = async (
      name: string,
      start: number,
      end: number,
    ) => [...(await view.readRows(name, start, end)).bytes];
    assert.deepEqual(await rows("swapped", 1, 3), [9, 10, 11, 0, 1, 2]);
    assert.deepEqual(await rows("swapped", 2, 4), [0, 1, 2, 3, 4, 5]);
    assert.deepEqual(await rows("swapped", 1, 1), []);
    assert.deepEqual(await rows("joined", 0, 1), [90, 91, 92]);
    await rejects(() => view.readRows("joined", 0, 3), "invalid_argument");
    await rejects(() => view.readRows("middle", 1, 3), "invalid_argument");
    await view.close();
  });
});

test("a view refuses parts that are not there or do not fit together", async () => {
  await inFolder(async (folder) => {
    const narrow = HostTensor.zeros("uint8", [4, 2]);
    const float = HostTensor.zeros("float32", [4, 3]);
    await writeSafetensors(`${folder}/a.safetensors`, { matrix: MATRIX, narrow, float });
    const checkpoint = await openCheckpoint(folder);
    const part = (source: string, start = 0, end = 4) => ({ source, start, end });
    const view = (...parts: ReturnType<typeof part>[]) =>
      viewCheckpoint(checkpoint, [{ name: "x", parts }]);
    await rejects(() => view(part("absent")), "missing_tensor");
    await rejects(() => view(part("matrix", 0, 5)), "tensor_shape_mismatch");
    await rejects(() => view(part("matrix", 2, 2)), "tensor_shape_mismatch");
    await rejects(() => view(part("matrix", 0, 1.5)), "tensor_shape_mismatch");
    await rejects(() => view(part("matrix"), part("narrow")), "tensor_shape_mismatch");
    await rejects(() => view(part("matrix"), part("float")), "tensor_shape_mismatch");
    await checkpoint.close();
  });
});
