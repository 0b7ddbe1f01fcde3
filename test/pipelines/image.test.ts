import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { decode } from "fast-png";
import { asciiJson, PipelineImage, quantizePixels } from "../../src/pipelines/image.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

function pixelsOf(...values: number[]): number[] {
  return [...quantizePixels(HostTensor.fromFloat32(Float32Array.from(values)))];
}

test("pixels are x / 2 + 1 / 2 clamped, times 255, rounded half to even", () => {
  assert.deepEqual(pixelsOf(-5, -1, 0, 1, 5), [0, 0, 128, 255, 255]);
  // 127.5 was a tie that went up to the even 128; these go down, up, down, up.
  assert.deepEqual(pixelsOf(tie(200), tie(201), tie(254), tie(133)), [200, 202, 254, 134]);
});

/** A decoded value whose pixel lies halfway between two levels, in float32. */
function tie(level: number): number {
  const unit = Math.fround((level + 0.5) / 255);
  const near = [-2, -1, 0, 1, 2].map((ulps) => unit + ulps * 2 ** -24);
  const found = near.find((value) => Math.fround(Math.fround(value) * 255) === level + 0.5);
  assert.ok(found !== undefined, `no tie at ${level}`);
  return 2 * Math.fround(found) - 1;
}

test("a PNG holds the pixels and the texts, and is the same each time", () => {
  const pixels = Uint8Array.from({ length: 5 * 4 * 3 }, (_, i) => (i * 37) % 256);
  const image = new PipelineImage(5, 4, pixels, { Software: "halftone", parameters: "{}" });
  const png = image.toPng();
  assert.deepEqual(png, new PipelineImage(5, 4, pixels, image.text).toPng());
  const decoded = decode(png, { checkCrc: true });
  assert.deepEqual([decoded.width, decoded.height, decoded.channels], [5, 4, 3]);
  assert.deepEqual([...decoded.data], [...pixels]);
  assert.deepEqual(decoded.text, { Software: "halftone", parameters: "{}" });
});

test("saving writes the whole file and nothing else", async () => {
  const folder = mkdtempSync(`${tmpdir()}/halftone-image-`);
  const image = new PipelineImage(2, 1, Uint8Array.of(1, 2, 3, 4, 5, 6));
  await image.save(`${folder}/out.png`);
  assert.deepEqual(new Uint8Array(readFileSync(`${folder}/out.png`)), image.toPng());
  assert.deepEqual(readdirSync(folder), ["out.png"]);
  await assert.rejects(image.save(`${folder}/no/such/folder/out.png`), { code: "write_failed" });
  assert.deepEqual(readdirSync(folder), ["out.png"]);
  rmSync(folder, { recursive: true });
});

test("texts of any language become Latin-1 without loss", () => {
  const value = { prompt: "Ünïcödé 日本語 😀 \u2028 \u007f" };
  const text = asciiJson(value);
  assert.match(text, /^[\x20-\x7e]*$/);
  assert.deepEqual(JSON.parse(text), value);
});
