import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { PRODUCT_WARNINGS } from "../../src/backends/cuda/product_trust.ts";

function textOf(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

test("docs/errors.md explains every code of errors and warnings, in the order of the source, and no other", () => {
  const union = /export type ErrorCode =([\s\S]*?);/.exec(textOf("src/errors.ts"))![1]!;
  const codes = [...union.matchAll(/^\s*\| "(\w+)"/gm)].map((match) => match[1]);
  const [errors, warnings] = textOf("docs/errors.md").split("## Warnings");
  assert.ok(codes.length >= 20);
  assert.deepEqual(codesOf(errors!), codes);
  assert.deepEqual(codesOf(warnings!), PRODUCT_WARNINGS);
});

/** The first cells of a table's rows. */
function codesOf(text: string): (string | undefined)[] {
  return [...text.matchAll(/^\| `(\w+)` +\|/gm)].map((match) => match[1]);
}
