/** Every `METHOD:FORMAT` through every command that takes one, on a small model. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { writeRandomTransformer } from "../../bench/random_transformer.ts";
import { createProgram } from "../../cli/program.ts";
import { writeModelFolder } from "../../src/io/write_checkpoint.ts";
import { formatTable } from "../../src/quantization/format_table.ts";
import { readGolden } from "../pipelines/goldens.ts";

const folder = mkdtempSync(join(tmpdir(), "halftone-every-format-"));
const model = join(folder, "model");
const SMALL = ["--width", "16", "--height", "16", "--steps", "1", "--max-sequence-length", "8"];
const ON = ["--backend", "wasm", "--threads", "1", "--json"];

before(async () => {
  // One block as wide as the widest block of weights, and everything else tiny.
  const golden = readGolden("single_blocks_only").folder;
  const config = JSON.parse(readFileSync(join(golden, "transformer/config.json"), "utf8"));
  const wide = { attention_head_dim: 64, num_attention_heads: 4, num_single_layers: 1 };
  await writeModelFolder(golden, model, ["transformer"], (unfinished) => {
    return writeRandomTransformer(join(unfinished, "transformer"), { ...config, ...wide });
  });
});

after(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a command in this process, which spares its start; returns what it prints. */
async function run(...words: string[]): Promise<string> {
  const { write } = process.stdout;
  let printed = "";
  process.stdout.write = ((text: string) => {
    printed += text;
    return true;
  }) as typeof write;
  try {
    await createProgram().parseAsync(words, { from: "user" });
  } finally {
    process.stdout.write = write;
  }
  return printed;
}

async function json(...words: string[]) {
  return JSON.parse(await run(...words));
}

async function transformerOf(path: string) {
  const { components } = await json("inspect", path, "--json");
  return components.find(({ name }: { name: string }) => name === "transformer") ?? components[0];
}

const plan = (...words: string[]) => json("plan", ...SMALL, ...ON, ...words);
const picture = join(folder, "picture.png");
const generate = (...words: string[]) =>
  json("generate", "a red star", ...SMALL, ...ON, "--output", picture, ...words);

/** What the model needs dense, asked for once; one command after another, as they print to the same place. */
const dense = () => asked ??= askDense();
let asked: ReturnType<typeof askDense> | undefined;

async function askDense() {
  return [await plan("--model", model), await transformerOf(model)] as const;
}

for (const { name, method, onTheFly, save, load } of formatTable()) {
  assert.ok(onTheFly && save && load, `${name} cannot do everything: say here what is left out`);

  test(`${name}: every command that takes a format takes it, and they agree`, async () => {
    const [densePlan, denseTransformer] = await dense();
    const of = ["--quantize", `transformer=${name}`];
    const planned = await plan("--model", model, ...of);
    assert.ok(planned.memory.stored < densePlan.memory.stored);
    const drawn = await generate("--model", model, ...of);
    assert.equal(drawn.planHash, planned.planHash);
    assert.equal(drawn.bytes.stored, planned.memory.stored);

    const saved = join(folder, name.replace(":", "-"));
    await run("quantize", model, saved, ...of);
    const { formats, bytes } = await transformerOf(saved);
    assert.ok(bytes < denseTransformer.bytes);
    assert.ok(Object.keys(formats).some((format) => format.includes(":")), Object.keys(formats)[0]);
    assert.equal((await plan("--model", saved)).planHash, planned.planHash);

    const undone = `${saved}-dense`;
    await run("dequantize", saved, undone, "--dtype", "bfloat16");
    assert.equal((await transformerOf(undone)).bytes, denseTransformer.bytes);
    for (const path of [saved, undone]) rmSync(path, { recursive: true });

    if (method !== "gguf") return;
    const file = `${saved}.gguf`;
    await run("quantize", model, file, "--quantize", name);
    const inFile = Object.keys((await transformerOf(file)).formats);
    assert.ok(inFile.some((format) => format.startsWith("gguf:")));
    const fromFile = await plan("--model", model, "--transformer", file);
    assert.equal(fromFile.planHash, planned.planHash);
    rmSync(file);
  });
}
