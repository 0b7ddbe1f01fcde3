import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { decode } from "fast-png";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import { runHalftone, startHalftone } from "./halftone_process.ts";

const folder = mkdtempSync(join(tmpdir(), "halftone-cli-"));
const demo = fileURLToPath(new URL("../../models/demo", import.meta.url));

after(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a command in the temporary folder and expects it to succeed. */
async function succeed(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await runHalftone(words, folder);
  assert.equal(code, 0, stderr);
  return stdout;
}

function pixels(name: string): Uint8Array {
  const { data } = decode(readFileSync(join(folder, name)));
  return data as Uint8Array;
}

test("generate writes pictures and latents and reports one JSON object", async () => {
  const words = ["generate", "a red star", "--num-images", "2", "--steps", "2", "--seed", "7"];
  const files = ["--output", "two.png", "--save-latents", "two.safetensors", "--json"];
  const report = JSON.parse(await succeed(...words, ...files));
  assert.deepEqual(report.files, ["two-0.png", "two-1.png"]);
  assert.deepEqual([report.width, report.height, report.seed, report.steps], [128, 128, 7, 2]);
  assert.equal(report.backend, "wasm");
  assert.match(report.planHash, /^[0-9a-f]{16}$/);
  for (const stage of ["load", "plan", "text", "denoise", "decode"]) {
    assert.ok(report.seconds[stage] > 0, stage);
  }
  assert.equal(report.seconds.steps.length, 2);
  const { stored, resident, peak } = report.bytes;
  assert.ok(stored > 20e6 && resident >= stored && peak > resident, JSON.stringify(report.bytes));
  for (const file of report.files) {
    assert.equal(decode(readFileSync(join(folder, file))).width, 128);
  }

  const checkpoint = await openCheckpoint(join(folder, "two.safetensors"));
  const { dtype, shape } = checkpoint.entries.get("latents")!;
  await checkpoint.close();
  assert.deepEqual([dtype, ...shape], ["float32", 2, 64, 64]); // [images, 8 * 8 tokens, channels]
});

test("generate --strict writes the same bytes for one, two and three threads", async () => {
  const names = ["1", "2", "3"].map((threads) => [threads, `threads-${threads}.png`] as const);
  for (const [threads, name] of names) {
    const options = ["--strict", "--backend", "wasm", "--threads", threads, "--output", name];
    await succeed("generate", "a blue house", "--steps", "3", ...options);
  }
  const [one, two, three] = names.map(([, name]) => readFileSync(join(folder, name)));
  assert.deepEqual(two, one);
  assert.deepEqual(three, one);
});

test("a quantized folder draws the same picture as quantizing on the fly", async () => {
  const output = await succeed("quantize", demo, "nf4", "--quantize", "bitsandbytes:nf4-dq");
  assert.match(output, /^text_encoder_2: .*\ntransformer: .*\n$/);
  const same = ["--steps", "2", "--strict"];
  await succeed("generate", "a tree", ...same, "--model", "nf4", "--output", "stored.png");
  const onTheFly = ["--quantize", "bitsandbytes:nf4-dq", "--output", "on-the-fly.png"];
  await succeed("generate", "a tree", ...same, ...onTheFly);
  await succeed("generate", "a tree", ...same, "--output", "dense.png");
  assert.deepEqual(pixels("stored.png"), pixels("on-the-fly.png"));
  assert.notDeepEqual(pixels("stored.png"), pixels("dense.png"));

  await succeed("dequantize", "nf4", "dense", "--dtype", "bfloat16");
  const report = JSON.parse(await succeed("inspect", "dense", "--json"));
  const before = JSON.parse(await succeed("inspect", demo, "--json"));
  assert.equal(report.bytes, before.bytes);
});

test("inspect names formats and sizes", async () => {
  const { components, bytes } = JSON.parse(await succeed("inspect", demo, "--json"));
  const names = components.map((component: { name: string }) => component.name);
  assert.deepEqual(names, ["text_encoder", "text_encoder_2", "transformer", "vae"]);
  const { tensors } = components[2];
  const embedder = tensors.find((tensor: { name: string }) => tensor.name === "x_embedder.weight");
  assert.deepEqual(embedder, {
    name: "x_embedder.weight",
    format: "bfloat16",
    shape: [256, 64],
    bytes: 2 * 256 * 64,
  });
  assert.equal(bytes, sum(components.map((component: { bytes: number }) => component.bytes)));
});

test("plan tells the hash and the bytes that generate will report", async () => {
  const size = ["--width", "64", "--height", "96", "--steps", "1", "--threads", "1"];
  const planned = JSON.parse(await succeed("plan", ...size, "--json"));
  const output = ["--output", "planned.png", "--json"];
  const drawn = JSON.parse(await succeed("generate", "a moon", ...size, ...output));
  assert.deepEqual([planned.width, planned.height], [64, 96]);
  assert.equal(planned.planHash, drawn.planHash);
  assert.equal(planned.memory.stored, drawn.bytes.stored);
  const difference = Math.abs(drawn.bytes.peak / planned.memory.peak - 1);
  assert.ok(difference <= 0.02, `peak ${drawn.bytes.peak}, planned ${planned.memory.peak}`);
});

test("doctor says what there is and what fits", async () => {
  const findings = JSON.parse(await succeed("doctor", "--json"));
  assert.match(findings.runtime, /^(deno|bun) \d/);
  assert.equal(findings.backend, "wasm");
  assert.ok(findings.processors >= 1);
  const formats = findings.flux.map(({ format }: { format: string }) => format);
  assert.ok(formats.includes("bfloat16") && formats.includes("bitsandbytes:nf4"));
});

test("Ctrl-C ends generate with code 130 and leaves nothing", async () => {
  const running = startHalftone(
    [
      "generate",
      "x",
      "--width",
      "512",
      "--height",
      "512",
      "--steps",
      "50",
      "--output",
      "never.png",
    ],
    folder,
  );
  await running.says("denoise: 1/50");
  running.kill("SIGINT");
  const { code, stderr } = await running.finished;
  assert.equal(code, 130, stderr);
  assert.match(stderr, /\ninterrupted\n$/);
  assert.deepEqual(readdirSync(folder).filter((name) => /never|part/.test(name)), []);
});

test("failures are one line with a code", async () => {
  const cases: readonly (readonly [code: number, message: RegExp, ...words: string[]])[] = [
    [1, /^error\[invalid_argument\]: .*width/m, "generate", "x", "--width", "0"],
    [1, /^error\[invalid_argument\]: .*--steps/m, "generate", "x", "--steps", "0"],
    [1, /^error\[model_not_found\]: /m, "generate", "x", "--model", "./nothing"],
    [1, /^error\[write_failed\]: /m, "generate", "x", "--steps", "1", "--output", "no/out.png"],
    [1, /^error\[invalid_argument\]: .*bitsandbytes:nf4/m, "plan", "--quantize", "nf5"],
    [1, /^error\[missing_file\]: /m, "inspect", "nothing"],
    [1, /^error\[quantization_config\]: /m, "dequantize", demo, "dequantized"],
    [2, /^error: missing required argument 'prompt'/m, "generate"],
    [2, /^error: .*--width.*whole number/m, "generate", "x", "--width", "wide"],
    [2, /^error: unknown command/m, "paint"],
  ];
  for (const [expected, message, ...words] of cases) {
    const { code, stdout, stderr } = await runHalftone(words, folder);
    assert.equal(code, expected, `${words.join(" ")}: ${stderr}`);
    assert.match(stderr, message);
    assert.equal(stdout, "");
  }
});

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
