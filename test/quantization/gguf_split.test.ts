/** GGUF's blocks taken apart by kernels, against the same in TypeScript, which is held against ggml. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { GGUF_BLOCKS } from "../../src/quantization/gguf_blocks.ts";
import { splitBlocks, splitPieces } from "../../src/quantization/gguf_split.ts";
import { decodeBlocks } from "../../src/quantization/gguf_tensors.ts";
import { type GgufBlockType, ggufTypeInfo } from "../../src/quantization/gguf_types.ts";
import { PIECE_BYTES, piecesOf } from "../../src/tensor/piece_memory.ts";
import { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";
import { assertFails } from "./support.ts";

const TYPES = Object.keys(GGUF_BLOCKS) as GgufBlockType[];
const NAME = "a.weight";

/** Bytes of a block at which its float16 numbers begin. */
function numbersOf(type: GgufBlockType): number[] {
  const { scale, offset } = GGUF_BLOCKS[type];
  return [scale, offset].flatMap((part) => {
    const at = part?.kind === "coded" ? part.superAt : part?.at;
    return at === null || at === undefined ? [] : [at];
  });
}

/** Blocks of any bytes, whose numbers are finite, for a matrix of one block per row. */
function anyBlocks(type: GgufBlockType, count: number) {
  const { bytes: stride, elements } = ggufTypeInfo(type);
  const bytes = new Uint8Array(count * stride);
  let state = stride;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  for (const at of numbersOf(type)) {
    for (let i = at + 1; i < bytes.length; i += stride) bytes[i] &= 0xbf;
  }
  return { bytes, shape: [count, elements] as const };
}

for (const type of TYPES) {
  const { bytes: stride } = ggufTypeInfo(type);

  test(`${type}: kernels take blocks apart into the same codes and scales`, async () => {
    for (const count of [1, 3, Math.floor(PIECE_BYTES / stride) + 5]) {
      const { bytes, shape } = anyBlocks(type, count);
      const expected = decodeBlocks(type, bytes, shape, NAME);
      assert.deepEqual(await splitBlocks({ type, shape, name: NAME }, bytes), expected);
      const scratch = new ScratchBytes();
      scratch.take(5 + stride).fill(255);
      assert.deepEqual(await splitBlocks({ type, shape, name: NAME, scratch }, bytes), expected);
    }
  });

  test(`${type}: codes come piece by piece`, async () => {
    const { bytes, shape } = anyBlocks(type, Math.floor(PIECE_BYTES / stride) + 5);
    const { codes, ...expected } = decodeBlocks(type, bytes, shape, NAME);
    const found = new Uint8Array(codes.length);
    const starts: number[] = [];
    const rest = await splitPieces({ type, shape, name: NAME }, (part, start) => {
      starts.push(start);
      found.set(part, start);
    }, (memory, take) => {
      return Promise.resolve(piecesOf(bytes, memory, { unit: stride }, take));
    });
    assert.deepEqual(rest, expected);
    assert.deepEqual(found, codes);
    assert.equal(starts.length, 2);
  });

  for (const at of numbersOf(type)) {
    test(`${type}: NaN or infinity at byte ${at} of a block is refused as in TypeScript`, async () => {
      const { bytes, shape } = anyBlocks(type, 7);
      for (const block of [2, 5]) bytes[block * stride + at + 1] |= 0x7c;
      for (
        const split of [
          () => decodeBlocks(type, bytes, shape, NAME),
          () => splitBlocks({ type, shape, name: NAME }, bytes),
        ]
      ) await assertFails(split, "non_finite_weight", /a\.weight[^]*in block 5/);
    });
  }
}
