import assert from "node:assert/strict";
import { test } from "node:test";
import { RegionAllocator } from "../../src/backends/wasm/region_allocator.ts";

/** An allocator from 64 to 1024 bytes, and the ends that its memory was made to reach. */
function allocatorOf() {
  const ends: number[] = [];
  return { ends, allocator: new RegionAllocator(64, 1024, (end) => ends.push(end)) };
}

test("a reservation grows memory once, takes nothing, and no region moves by it", () => {
  const { ends, allocator } = allocatorOf();
  allocator.reserve(256);
  assert.deepEqual(ends, [320]);
  assert.deepEqual([allocator.used.weights, allocator.peak], [0, 0]);
  assert.deepEqual([64, 192].map(() => allocator.allocate(128, "weights")), [64, 192]);
  assert.equal(Math.max(...ends), 320);
});

test("a reservation counts what is free, and asks for no more than there can be", () => {
  const { ends, allocator } = allocatorOf();
  const first = allocator.allocate(256, "arena");
  allocator.allocate(64, "weights");
  allocator.free(first);
  ends.length = 0;
  allocator.reserve(256);
  assert.deepEqual(ends, []);
  allocator.reserve(320);
  assert.deepEqual(ends, [448]);
  allocator.reserve(4096);
  assert.deepEqual(ends, [448]);
});
