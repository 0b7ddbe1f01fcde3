import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createProgram } from "../../cli/program.ts";
import { runHalftone } from "./halftone_process.ts";

const FILES = ["--transformer", "--text-encoder-2"];
const QUANTIZE = ["--quantize", "--quantize-outer"];
const MODEL = [
  "--model",
  ...FILES,
  "--backend",
  "--threads",
  "--strict",
  "--matmul-precision",
  "--dtype",
  ...QUANTIZE,
  "--activations",
  "--attention",
];
const SIZE = ["--width", "--height", "--steps", "--max-sequence-length"];

/** Users' scripts hold on to these names. */
const OPTIONS: Readonly<Record<string, readonly string[]>> = {
  generate: [
    ...SIZE,
    ...MODEL,
    "--seed",
    "--guidance-scale",
    "--true-cfg-scale",
    "--negative-prompt",
    "--prompt-2",
    "--num-images",
    "--output",
    "--save-latents",
    "--json",
  ],
  quantize: QUANTIZE,
  dequantize: ["--dtype"],
  inspect: ["--json"],
  plan: [...SIZE, ...MODEL, "--text", "--json"],
  formats: ["--json"],
  bench: [],
  "bench formats": [
    ...SIZE.filter((option) => option !== "--max-sequence-length"),
    "--model",
    "--backend",
    "--threads",
    "--prompt",
    "--seed",
    "--formats",
    "--except",
    "--resume",
    "--activations",
    "--output-dir",
    "--json",
  ],
  doctor: ["--json"],
  serve: [...MODEL, "--host", "--port", "--token", "--queue"],
};

test("the commands have the options that they promise", () => {
  const { commands } = createProgram();
  const found = commands.flatMap((command) => [command, ...command.commands]).map((command) => [
    commands.includes(command) ? command.name() : `${command.parent!.name()} ${command.name()}`,
    command.options.map((option) => option.long).toSorted(),
  ]);
  const expected = Object.entries(OPTIONS).map(([name, options]) => [name, options.toSorted()]);
  assert.deepEqual(found, expected);
});

test("--version prints the version of the package, which both manifests agree on", async () => {
  const versions = ["package.json", "deno.json"].map((name) => {
    const text = readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
    return JSON.parse(text).version;
  });
  const { code, stdout } = await runHalftone(["--version"]);
  assert.deepEqual([code, stdout], [0, `${versions[0]}\n`]);
  assert.equal(versions[1], versions[0]);
});

test("docs/cli.md and docs/server.md name every option", () => {
  const page = (name: string) =>
    readFileSync(new URL(`../../docs/${name}.md`, import.meta.url), "utf8");
  const text = page("cli") + page("server");
  const options = new Set(Object.values(OPTIONS).flat());
  for (const option of options) assert.ok(text.includes(option), option);
});
