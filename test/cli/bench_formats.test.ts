import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { decode } from "fast-png";
import { contactSheet } from "../../cli/bench/contact_sheet.ts";
import { compareFormats } from "../../cli/bench/compare_formats.ts";
import { psnr, relativeL2, reportMarkdown } from "../../cli/bench/format_report.ts";
import { benchedFormats, type FormatBenchRequest, runFormat } from "../../cli/bench/format_runs.ts";
import { gmsd } from "../../cli/bench/gmsd.ts";
import { GLYPH_HEIGHT, GLYPH_WIDTH, hasDot } from "../../cli/bench/glyphs.ts";
import { HalftoneError } from "../../src/errors.ts";
import { PipelineImage } from "../../src/pipelines/image.ts";
import { formatTable } from "../../src/quantization/format_table.ts";
import { readGolden } from "../quantization/support.ts";
import { runHalftone, startHalftone } from "./halftone_process.ts";

const folder = mkdtempSync(join(tmpdir(), "halftone-bench-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("distances are those of their definitions", () => {
  assert.equal(relativeL2(Float32Array.of(3, 0), Float32Array.of(3, 4)), 4 / 5);
  assert.equal(psnr(Uint8Array.of(0, 255), Uint8Array.of(0, 255)), null);
  assert.equal(psnr(Uint8Array.of(0, 255), Uint8Array.of(255, 0)), 0);
  // A mean squared error of 1: 20 log10(255).
  assert.ok(Math.abs(psnr(Uint8Array.of(1, 1), Uint8Array.of(0, 2))! - 48.1308) < 1e-4);
});

interface GmsdCase {
  readonly width: number;
  readonly height: number;
  readonly kind: "noisy" | "darker" | "moved" | "flat";
  readonly gmsd: number;
}

/** test/goldens/make_gmsd_goldens.py has the same pictures. */
function picture(width: number, height: number, kind?: GmsdCase["kind"]): PipelineImage {
  const pattern = (x: number, y: number, c: number) =>
    (Math.floor(x * x / 3) + Math.floor(y * y / 5) + Math.floor(x * y / 7) + c * 40) % 256;
  const pixel = (x: number, y: number, c: number): number => {
    const value = pattern(x, y, c);
    if (kind === "noisy") {
      return Math.min(255, Math.max(0, value + (x * 31 + y * 17 + c * 7) % 23 - 11));
    }
    if (kind === "darker") return Math.floor(value * 3 / 4);
    if (kind === "moved") return pattern((x + width - 1) % width, y, c);
    return kind === "flat" ? 90 : value;
  };
  const pixels = Uint8Array.from({ length: 3 * width * height }, (_, index) => {
    const at = Math.floor(index / 3);
    return pixel(at % width, Math.floor(at / width), index % 3);
  });
  return new PipelineImage(width, height, pixels);
}

test("GMSD is that of piq, for odd sides too, and 0 for the same picture", async () => {
  const cases = await readGolden<GmsdCase[]>("gmsd.json");
  for (const { width, height, kind, gmsd: expected } of cases) {
    const exact = picture(width, height);
    const found = gmsd(picture(width, height, kind), exact);
    assert.ok(
      Math.abs(found - expected) < 1e-12,
      `${width}x${height} ${kind}: ${found}, ${expected}`,
    );
    assert.equal(gmsd(exact, exact), 0);
  }
  assert.ok(cases.length >= 24);
});

test("all formats that quantize on the fly are compared, after the dense types", () => {
  const names = formatTable().filter(({ onTheFly }) => onTheFly).map(({ name }) => name);
  assert.deepEqual(benchedFormats([]), ["float32", "bfloat16", ...names]);
  assert.deepEqual(benchedFormats(["bitsandbytes:nf4"]).slice(2), ["bitsandbytes:nf4"]);
  assert.deepEqual(benchedFormats([], names.slice(1)).slice(2), [names[0]]);
  assert.throws(() => benchedFormats(["nf4"]), /Cannot compare.*--formats/s);
  assert.throws(() => benchedFormats([], ["nf4"]), /Cannot compare.*--except/s);
});

test("every printable character of ASCII has dots of its own", () => {
  const pictures = Array.from({ length: 95 }, (_, index) => {
    const character = String.fromCharCode(32 + index);
    const dots = Array.from(
      { length: GLYPH_WIDTH * GLYPH_HEIGHT },
      (_, dot) => hasDot(character, dot % GLYPH_WIDTH, Math.floor(dot / GLYPH_WIDTH)) ? "#" : ".",
    );
    return dots.join("");
  });
  assert.equal(new Set(pictures).size, 95);
  assert.ok(!pictures[0]!.includes("#"));
});

test("a contact sheet has every picture and its text", () => {
  const image = new PipelineImage(20, 10, new Uint8Array(600).fill(200));
  const sheet = contactSheet([{ image, lines: ["ab", "c"] }, { image, lines: ["d", ""] }]);
  assert.deepEqual([sheet.width, sheet.height], [8 + 2 * 28, 8 + 10 + 4 + 20 + 8]);
  const at = (x: number, y: number) => sheet.pixels[3 * (y * sheet.width + x)];
  assert.deepEqual([at(8, 8), at(27, 17), at(28, 17), at(36, 8)], [200, 200, 236, 200]);
  for (let x = 0; x < GLYPH_WIDTH; x++) {
    for (let y = 0; y < GLYPH_HEIGHT; y++) {
      assert.equal(at(8 + x, 22 + y), hasDot("a", x, y) ? 24 : 236, `a, ${x}, ${y}`);
      assert.equal(at(36 + x, 22 + y), hasDot("d", x, y) ? 24 : 236, `d, ${x}, ${y}`);
    }
  }
});

test("a large picture is made smaller by averaging", () => {
  const pixels = Uint8Array.from({ length: 3 * 512 * 4 }, (_, index) => index % 6 < 3 ? 100 : 200);
  const sheet = contactSheet([{ image: new PipelineImage(512, 4, pixels), lines: [] }]);
  assert.deepEqual([sheet.width, sheet.height], [8 + 136, 8 + 1 + 4 + 8]);
  assert.equal(sheet.pixels[3 * (8 * sheet.width + 8)], 150);
});

test("bench formats writes a table, its numbers and the pictures", async () => {
  const size = ["--width", "64", "--height", "32", "--steps", "2", "--seed", "3"];
  const formats = ["--formats", "bitsandbytes:int8, bitsandbytes:nf4"];
  const words = ["bench", "formats", ...size, ...formats, "--output-dir", "out", "--json"];
  const { code, stdout, stderr } = await runHalftone(words, folder);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(stdout);
  assert.deepEqual(JSON.parse(readFileSync(join(folder, "out/demo.json"), "utf8")), report);
  assert.deepEqual(readdirSync(join(folder, "out")).sort(), ["demo.json", "demo.md", "demo.png"]);
  assert.deepEqual([report.width, report.height, report.steps], [64, 32, 2]);
  const [float32, bfloat16, int8, nf4] = report.formats;
  assert.deepEqual([float32.name, float32.velocityError, float32.psnr], ["float32", 0, null]);
  assert.ok(float32.gmsd === 0 && int8.gmsd > 0 && nf4.gmsd > int8.gmsd);
  assert.equal(float32.storedBytes, 2 * bfloat16.storedBytes);
  assert.ok(nf4.storedBytes < int8.storedBytes && int8.storedBytes < bfloat16.storedBytes);
  assert.ok(int8.velocityError > 0 && nf4.velocityError > int8.velocityError);
  assert.ok(nf4.peakBytes > nf4.residentBytes && nf4.secondsPerStep > 0);
  const page = readFileSync(join(folder, "out/demo.md"), "utf8");
  assert.match(page, /\| `bitsandbytes:nf4` +\| +4\.50 \|/);
  // Four pictures of 64x32 in one row, three lines of text under each.
  const sheet = decode(readFileSync(join(folder, "out/demo.png")));
  assert.deepEqual([sheet.width, sheet.height], [8 + 4 * (15 * 6 + 8), 8 + 32 + 4 + 30 + 8]);
});

test("an interrupted comparison goes on where it was, with the same settings only", async () => {
  const size = ["--width", "32", "--height", "32", "--steps", "1", "--output-dir", "resumed"];
  const names = ["bitsandbytes:nf4", "gguf:Q4_0", "gguf:Q4_K"];
  const words = ["bench", "formats", ...size, "--formats", names.join(","), "--json"];
  const running = startHalftone(words, folder);
  const row = join(folder, "resumed/demo.unfinished/bitsandbytes_nf4.json");
  let ended = false;
  running.finished.finally(() => ended = true);
  while (!existsSync(row) && !ended) await new Promise((resolve) => setTimeout(resolve, 10));
  running.kill("SIGINT");
  assert.equal((await running.finished).code, 130);
  const kept = { ...JSON.parse(readFileSync(row, "utf8")), secondsPerStep: 123 };
  writeFileSync(row, JSON.stringify(kept));
  const other = await runHalftone([...words, "--resume", "--seed", "1"], folder);
  assert.match(other.stderr, /^error\[invalid_argument\]: .*--resume/m);
  const { code, stdout, stderr } = await runHalftone([...words, "--resume"], folder);
  assert.equal(code, 0, stderr);
  const { formats } = JSON.parse(stdout);
  assert.deepEqual(formats[2], kept);
  assert.deepEqual(formats.slice(2).map(({ name }: { name: string }) => name), names);
  const files = readdirSync(join(folder, "resumed")).sort();
  assert.deepEqual(files, ["demo.json", "demo.md", "demo.png"]);
});

test("a format that fails gets a row that says so, and the others go on", async () => {
  const request: FormatBenchRequest = {
    model: fileURLToPath(new URL("../../models/demo", import.meta.url)),
    prompt: "a red star",
    seed: 0,
    width: 32,
    height: 32,
    numInferenceSteps: 1,
    maxSequenceLength: 8,
    backend: "wasm",
  };
  const said: string[] = [];
  const kept: string[] = [];
  const names = ["float32", "gguf:Q2_K", "bitsandbytes:nf4"];
  const { formats, failures } = await compareFormats(names, request, {
    unfinished: {
      find: () => Promise.resolve(undefined),
      keep: (name) => Promise.resolve(void kept.push(name)),
    },
    progress: { show: () => {}, say: (text) => said.push(text) },
    run: (name, ...rest) => {
      if (name !== "gguf:Q2_K") return runFormat(name, ...rest);
      throw new HalftoneError("out_of_memory", "Cannot hold so much", { found: 7 });
    },
  });
  const failure = "error[out_of_memory]: Cannot hold so much: found 7";
  assert.deepEqual(failures, [{ name: "gguf:Q2_K", bitsPerWeight: 2.625, failure }]);
  assert.deepEqual([said, kept], [[`gguf:Q2_K: ${failure}`], ["bitsandbytes:nf4"]]);
  const results = formats.map(({ result }) => result);
  assert.deepEqual(results.map(({ name }) => name), ["float32", "bitsandbytes:nf4"]);
  const page = reportMarkdown({
    ...{ model: "demo", prompt: "", seed: 0, steps: 1, width: 32, height: 32, backend: "wasm" },
    ...{ machine: {}, formats: results, failures, leftOut: ["torchao:int4wo_hqq"] },
  }, "demo.png");
  assert.match(page, /\| `gguf:Q2_K` +\| +2\.63 \| +failed \|/);
  assert.ok(page.includes(`\n\`gguf:Q2_K\` failed: ${failure}\n`));
  assert.ok(page.includes("\nLeft out: `torchao:int4wo_hqq`.\n"));
});

test("formats lists every format, as text and as JSON", async () => {
  const [text, json] = await Promise.all([
    runHalftone(["formats"], folder),
    runHalftone(["formats", "--json"], folder),
  ]);
  assert.deepEqual([text.code, json.code], [0, 0], text.stderr + json.stderr);
  assert.deepEqual(JSON.parse(json.stdout), { formats: formatTable() });
  const lines = text.stdout.trimEnd().split("\n").slice(1);
  assert.deepEqual(
    lines.map((line) => line.split(" ")[0]),
    formatTable().map(({ name }) => name),
  );
  assert.match(text.stdout, /^bitsandbytes:nf4 +4\.50 +float +NormalFloat4/m);
});

test("bench formats refuses an unknown format before anything is drawn or written", async () => {
  const words = ["bench", "formats", "--formats", "nf5", "--output-dir", "none"];
  const { code, stderr } = await runHalftone(words, folder);
  assert.equal(code, 1);
  assert.match(stderr, /^error\[invalid_argument\]: .*--formats.*nf5/m);
  assert.ok(!readdirSync(folder).includes("none"));
});
