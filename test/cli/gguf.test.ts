import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import { readGolden } from "../pipelines/goldens.ts";
import { runHalftone } from "./halftone_process.ts";

const folder = mkdtempSync(join(tmpdir(), "halftone-cli-gguf-"));
const model = readGolden("heads_of_32").folder;

after(() => rmSync(folder, { recursive: true, force: true }));

async function succeed(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await runHalftone(words, folder);
  assert.equal(code, 0, stderr);
  return stdout;
}

async function fail(...words: string[]): Promise<string> {
  const { code, stderr } = await runHalftone(words, folder);
  assert.equal(code, 1);
  return stderr;
}

const SMALL = ["--width", "16", "--height", "16", "--steps", "2", "--max-sequence-length", "8"];

test("quantize writes GGUF files that inspect lists, generate runs and dequantize undoes", async () => {
  const line = await succeed("quantize", model, "flux.gguf", "--quantize", "gguf:Q8_0");
  assert.match(line, /^flux\.gguf: .+ -> .+/);
  await succeed("quantize", model, "t5.gguf", "--quantize", "text_encoder_2=gguf:Q5_1");
  const listed = await succeed("inspect", "flux.gguf");
  assert.match(listed, /single_blocks\.0\.linear1\.weight +\[\d+, \d+\] +gguf:Q8_0/);
  const files = ["--transformer", "flux.gguf", "--text-encoder-2", "t5.gguf"];
  const words = ["generate", "a red star", "--model", model, ...SMALL, "--json"];
  const report = JSON.parse(await succeed(...words, ...files));
  const plain = JSON.parse(await succeed(...words));
  assert.ok(report.bytes.stored < plain.bytes.stored);
  assert.notEqual(report.planHash, plain.planHash);
  await succeed("dequantize", "flux.gguf", "flux.safetensors", "--dtype", "bfloat16");
  const dense = await openCheckpoint(join(folder, "flux.safetensors"));
  assert.equal(dense.entries.get("single_blocks.0.linear1.weight")?.dtype, "bfloat16");
  await dense.close();
});

test("a model folder becomes one with GGUF files, and runs", async () => {
  await succeed("quantize", model, "model", "--quantize", "gguf:Q4_0");
  const listed = JSON.parse(await succeed("inspect", "model", "--json"));
  const transformer = listed.components.find(({ name }: { name: string }) =>
    name === "transformer"
  );
  assert.ok(transformer.formats["gguf:Q4_0"] > 0);
  await succeed("generate", "a red star", "--model", "model", ...SMALL);
});

test("a safetensors file of a transformer becomes a GGUF file under the other names", async () => {
  mkdirSync(join(folder, "one"));
  const weights = "diffusion_pytorch_model.safetensors";
  copyFileSync(join(model, "transformer", weights), join(folder, "one", weights));
  await succeed("quantize", `one/${weights}`, "one.gguf", "--quantize", "gguf:Q4_1");
  const written = await openCheckpoint(join(folder, "one.gguf"));
  assert.ok(written.entries.has("img_in.weight"));
  assert.equal(written.metadata["general.architecture"], "flux");
  await written.close();
});

test("F32, F16 and BF16 files are written too, and are dense", async () => {
  for (const [type, dtype] of [["F32", "float32"], ["F16", "float16"], ["BF16", "bfloat16"]]) {
    await succeed("quantize", model, `${type}.gguf`, "--quantize", `gguf:${type}`);
    const written = await openCheckpoint(join(folder, `${type}.gguf`));
    assert.equal(written.entries.get("single_blocks.0.linear1.weight")?.dtype, dtype);
    assert.equal(written.entries.get("single_blocks.0.linear1.bias")?.dtype, "float32");
    await written.close();
  }
  const words = ["generate", "a red star", "--model", model, ...SMALL, "--save-latents"];
  await succeed(...words, "file.safetensors", "--transformer", "BF16.gguf");
  await succeed(...words, "model.safetensors");
  const [file, plain] = await Promise.all(["file", "model"].map(async (name) => {
    const latents = await openCheckpoint(join(folder, `${name}.safetensors`));
    const { bytes } = await latents.read("latents");
    await latents.close();
    return bytes;
  }));
  assert.deepEqual(file, plain); // the model is in bfloat16 itself
});

test("a .gguf file of another method, of several formats or of another model is refused", async () => {
  const quantize = (...flags: string[]) => fail("quantize", model, "bad.gguf", ...flags);
  assert.match(await quantize("--quantize", "bitsandbytes:nf4"), /one gguf:FORMAT/);
  assert.match(
    await quantize("--quantize", "gguf:Q4_0", "--quantize", "vae=gguf:Q4_0"),
    /one gguf:FORMAT/,
  );
  assert.match(await quantize("--quantize", "vae=gguf:Q4_0"), /transformer of FLUX\.1/);
});
