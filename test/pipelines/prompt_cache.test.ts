import assert from "node:assert/strict";
import { test } from "node:test";
import { PromptCache } from "../../src/pipelines/prompt_cache.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

/** States of 4 bytes per token. */
function states(tokens: number): HostTensor {
  return HostTensor.fromFloat32(new Float32Array(tokens), [tokens, 1]);
}

test("a prompt is known at the length it was encoded at only", () => {
  const cache = new PromptCache();
  const made = states(4);
  cache.set("a star", 4, made);
  assert.equal(cache.get("a star", 4), made);
  assert.equal(cache.get("a star", 8), undefined);
  assert.equal(cache.get("a house", 4), undefined);
});

test("beyond its bytes a cache forgets what was used longest ago", () => {
  const cache = new PromptCache(32);
  cache.set("first", 4, states(4));
  cache.set("second", 4, states(4));
  cache.get("first", 4);
  cache.set("third", 4, states(4));
  assert.equal(cache.bytes, 32);
  assert.equal(cache.get("second", 4), undefined);
  assert.ok(cache.get("first", 4));
  assert.ok(cache.get("third", 4));
});

test("states that are larger than the cache are not kept, and drive nothing out", () => {
  const cache = new PromptCache(32);
  cache.set("small", 4, states(4));
  cache.set("large", 16, states(16));
  assert.equal(cache.get("large", 16), undefined);
  assert.ok(cache.get("small", 4));
  assert.equal(cache.bytes, 16);
});

test("states set twice are counted once", () => {
  const cache = new PromptCache(32);
  cache.set("a star", 4, states(4));
  cache.set("a star", 4, states(4));
  assert.equal(cache.bytes, 16);
});
