import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { dequantize } from "../../src/quantization/dequantize.ts";
import { isGgufQuantType, quantizeBlocks } from "../../src/quantization/gguf_quantizers.ts";
import { decodeBlocks, encodeBlocks } from "../../src/quantization/gguf_tensors.ts";
import { type GgufBlockType, ggufTypeInfo } from "../../src/quantization/gguf_types.ts";
import { ggufInput, randomBlocks } from "./gguf_recipes.ts";

interface BlockRecord {
  readonly type: GgufBlockType;
  readonly input: string;
  readonly bytes: string;
  readonly values: string;
}

const RECORDS: readonly BlockRecord[] = JSON.parse(
  readFileSync(new URL("../goldens/gguf/blocks.json", import.meta.url), "utf8"),
);

function sha256(array: ArrayBufferView): string {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return createHash("sha256").update(bytes).digest("hex");
}

/** A matrix of 2 rows. */
function shapeOf(type: GgufBlockType, bytes: Uint8Array): [number, number] {
  const info = ggufTypeInfo(type);
  return [2, bytes.length / info.bytes * info.elements / 2];
}

function blocksOf({ type, input }: BlockRecord): Uint8Array {
  if (input === "blocks") return randomBlocks(type);
  assert.ok(isGgufQuantType(type));
  const { elements, bytes } = ggufTypeInfo(type);
  const values = ggufInput(input);
  const blocks = new Uint8Array(values.length / elements * bytes);
  quantizeBlocks(type, values, blocks);
  return blocks;
}

for (const record of RECORDS) {
  const { type, input } = record;
  test(`${type} of ${input}: bytes and values equal ggml's, and nothing is lost`, () => {
    const blocks = blocksOf(record);
    assert.equal(sha256(blocks), record.bytes, "bytes");
    const tensor = decodeBlocks(type, blocks, shapeOf(type, blocks));
    assert.equal(sha256(dequantize(tensor)), record.values, "values");
    assert.equal(sha256(encodeBlocks(type, tensor)), record.bytes, "written back");
  });
}

test("every type has records for every input", () => {
  const types = new Set(RECORDS.map(({ type }) => type));
  assert.equal(types.size, 14);
  assert.equal(RECORDS.length, 14 * 16);
});
