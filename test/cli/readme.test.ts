import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { decode } from "fast-png";

const root = new URL("../../", import.meta.url);

function readmeText(): string {
  return readFileSync(new URL("README.md", root), "utf8");
}

test("the README's code draws its picture", async () => {
  const [, code] = /```ts\n([\s\S]*?)```/.exec(readmeText())!;
  const folder = mkdtempSync(join(tmpdir(), "halftone-readme-"));
  try {
    const picture = join(folder, "star.png");
    const script = join(folder, "example.ts");
    const placed = code!
      .replace('"@halftone/halftone"', JSON.stringify(new URL("mod.ts", root).href))
      .replace('"models/demo"', JSON.stringify(fileURLToPath(new URL("models/demo", root))))
      .replace('"star.png"', JSON.stringify(picture))
      .replace("numInferenceSteps: 20", "numInferenceSteps: 2");
    assert.notEqual(placed, code);
    writeFileSync(script, placed);
    await import(pathToFileURL(script).href);
    assert.equal(decode(readFileSync(picture)).width, 128);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("the README's links lead somewhere", () => {
  const links = [...readmeText().matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, path]) => path!);
  assert.ok(links.length >= 4);
  for (const link of links) assert.ok(existsSync(new URL(link, root)), link);
});

test("the README's tasks and scripts exist", () => {
  const { tasks } = JSON.parse(readFileSync(new URL("deno.json", root), "utf8"));
  const { scripts } = JSON.parse(readFileSync(new URL("package.json", root), "utf8"));
  const named = [...readmeText().matchAll(/(?:deno(?:@2)? task|bun run) (\w+)/g)];
  assert.ok(named.length >= 4);
  for (const [text, name] of named) {
    assert.ok((text!.startsWith("bun") ? scripts : tasks)[name!] !== undefined, text);
  }
});
