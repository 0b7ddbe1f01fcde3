import assert from "node:assert/strict";
import { test } from "node:test";
import { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";
import { SharedScratch } from "../../src/tensor/shared_scratch.ts";

for (const kind of [ScratchBytes, SharedScratch]) {
  const memory = kind === SharedScratch ? "shared scratch memory" : "scratch memory";

  test(`pieces of ${memory} do not overlap, are aligned, and outlive growing`, () => {
    const scratch = new kind();
    const pieces = [3, 64, 0, 2 ** 24, 5].map((count) => scratch.take(count));
    for (const [index, piece] of pieces.entries()) {
      assert.equal(piece.buffer instanceof SharedArrayBuffer, kind === SharedScratch);
      assert.equal(piece.byteOffset % 64, 0);
      piece.fill(index + 1);
    }
    assert.deepEqual(pieces.map((piece) => piece.byteLength), [3, 64, 0, 2 ** 24, 5]);
    for (const [index, piece] of pieces.entries()) {
      const ends = piece.byteLength > 0 ? [piece[0], piece.at(-1)] : [];
      assert.ok(ends.every((byte) => byte === index + 1));
    }
  });

  test(`after a reset the same bytes of ${memory} serve again`, () => {
    const scratch = new kind();
    const first = scratch.take(1000).fill(7);
    scratch.reset();
    const second = scratch.take(500);
    assert.equal(second.buffer, first.buffer);
    assert.equal(second.byteOffset, first.byteOffset);
    assert.ok(second.every((byte) => byte === 7));
  });
}

test("a reset takes shared pieces back as well", () => {
  const scratch = new ScratchBytes();
  const { byteOffset } = scratch.shared.take(1000);
  scratch.reset();
  assert.equal(scratch.shared.take(1000).byteOffset, byteOffset);
});

test("a shared memory holds all pieces, and is another one once it has grown", () => {
  const scratch = new SharedScratch();
  const first = scratch.take(1000).fill(1);
  const before = scratch.memoryOf(first)!;
  assert.equal(scratch.memoryOf(scratch.take(1000))!.id, before.id);
  const large = scratch.take(2 ** 25).fill(2);
  const { memory, id } = scratch.memoryOf(first, large)!;
  assert.notEqual(id, before.id);
  assert.equal(memory, before.memory);
  const seen = new Uint8Array(memory.buffer);
  assert.deepEqual([seen[first.byteOffset], seen[large.byteOffset]], [1, 2]);
  assert.equal(scratch.memoryOf(first, new SharedScratch().take(1000)), null);
});
