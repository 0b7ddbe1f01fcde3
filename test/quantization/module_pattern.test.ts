/** Patterns of configs: what people write is taken, what takes forever is not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ModulePattern } from "../../src/quantization/module_pattern.ts";
import { assertFails } from "./support.ts";

test("patterns that people write are taken", () => {
  const cases: readonly (readonly [pattern: string, module: string, found: boolean])[] = [
    ["patch_embed", "a.patch_embed.proj", true],
    ["^proj_in$", "proj_in", true],
    ["^proj_in$", "a.proj_in", false],
    [".*norm.*", "blocks.0.norm1.linear", true],
    ["transformer_blocks\\.\\d+\\.attn", "transformer_blocks.12.attn.to_q", true],
    ["transformer_blocks\\.(0|1|2|3|4|5|6|7)\\.", "transformer_blocks.8.ff", false],
    ["(?:single_)?transformer_blocks\\.[0-9]{1,2}\\.", "single_transformer_blocks.37.attn", true],
    ["norm_out|proj_out|x_embedder", "x_embedder", true],
    ["[)(*+]", "a.b", false],
  ];
  for (const [pattern, module, found] of cases) {
    assert.equal(new ModulePattern(pattern, "skip").test(module), found, pattern);
  }
});

test("patterns that could take long, and what is none, are refused", async () => {
  const patterns = [
    "(a+)+$",
    "(a|a)*$",
    "(?:a*)*b",
    "(a{1,9}){9}",
    "(?=a)b",
    "(a)\\1",
    ".*.*.*x",
    "(a|b)".repeat(40),
    "a?".repeat(40),
    "a".repeat(257),
    "(",
    "[",
    3,
    null,
  ];
  for (const pattern of patterns) {
    const make = () => new ModulePattern(pattern, "skip_modules_pattern");
    await assertFails(make, "quantization_config", /skip_modules_pattern/);
  }
});

test("the slowest patterns that are taken are quick, and long names match nothing", () => {
  const name = "a".repeat(256);
  const started = performance.now();
  for (const pattern of ["a*a*b", "a+.*c", "[a-z]{1,200}\\w{1,200}x"]) {
    assert.equal(new ModulePattern(pattern, "skip").test(name), false);
  }
  assert.ok(performance.now() - started < 1000);
  assert.equal(new ModulePattern("a", "skip").test("a".repeat(257)), false);
});
