import assert from "node:assert/strict";
import { test } from "node:test";
import { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";

test("pieces taken together do not overlap, are aligned, and outlive growing", () => {
  const scratch = new ScratchBytes();
  const pieces = [3, 64, 0, 2 ** 24, 5].map((count) => scratch.take(count));
  for (const [index, piece] of pieces.entries()) {
    assert.equal(piece.byteOffset % 64, 0);
    piece.fill(index + 1);
  }
  assert.deepEqual(pieces.map((piece) => piece.byteLength), [3, 64, 0, 2 ** 24, 5]);
  for (const [index, piece] of pieces.entries()) {
    const ends = piece.byteLength > 0 ? [piece[0], piece.at(-1)] : [];
    assert.ok(ends.every((byte) => byte === index + 1));
  }
});

test("after a reset the same bytes serve again", () => {
  const scratch = new ScratchBytes();
  const first = scratch.take(1000).fill(7);
  scratch.reset();
  const second = scratch.take(500);
  assert.equal(second.buffer, first.buffer);
  assert.equal(second.byteOffset, first.byteOffset);
  assert.ok(second.every((byte) => byte === 7));
});
