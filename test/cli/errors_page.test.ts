import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

function textOf(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

test("docs/errors.md explains every error code, in the order of the source, and no other", () => {
  const union = /export type ErrorCode =([\s\S]*?);/.exec(textOf("src/errors.ts"))![1]!;
  const codes = [...union.matchAll(/^\s*\| "(\w+)"/gm)].map((match) => match[1]);
  const rows = [...textOf("docs/errors.md").matchAll(/^\| `(\w+)` +\|/gm)].map((match) => match[1]);
  assert.ok(codes.length >= 20);
  assert.deepEqual(rows, codes);
});
