/** The benchmark on an NVIDIA GPU as a command, on the stand-in at a tiny size. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { cudaRows, ROW_OPTIONS } from "../../bench/cuda_plan.ts";
import { runtimeName } from "../../src/runtime/system.ts";
import { openStandIn } from "./stand_in.ts";

const standIn = openStandIn("bench_rows");
const skip = typeof standIn === "string" ? standIn : false;
if (skip) console.log(`cuda: the benchmark's command is skipped: ${skip}`);

const TINY = {
  double: "1",
  single: "1",
  heads: "1",
  size: "16",
  steps: "1",
  rows: "step,attention,decoder,offload", // bench_picture.test.ts has the picture
  formats: "torchao:nonsense,gguf:Q8_0",
  "decoder-width": "4",
};
/** The rows of those in their order. */
const NAMES = [
  "attention with cuDNN",
  "attention without cuDNN",
  "decoder with cuDNN",
  "decoder without cuDNN",
  "offload bitsandbytes:nf4",
  "step torchao:nonsense",
  "step gguf:Q8_0",
];

/** What the command prints with these options. */
function run(library: string, options: Readonly<Record<string, string>>) {
  const main = fileURLToPath(new URL("../../bench/cuda.ts", import.meta.url));
  const runtime = runtimeName() === "deno" ? ["run", "-A", "--no-check"] : [];
  const libraries = { driver: library, "cublas-lt": library, cudnn: library };
  const words = Object.entries({ ...TINY, ...libraries, ...options })
    .map(([name, value]) => `--${name}=${value}`);
  const text = execFileSync(process.execPath, [...runtime, main, ...words], {
    stdio: ["ignore", "pipe", "ignore"],
    encoding: "utf8",
  });
  return JSON.parse(text);
}

test("what matters most is measured first", () => {
  const values = Object.fromEntries(
    Object.entries(ROW_OPTIONS).flatMap(([name, option]) =>
      "default" in option ? [[name, option.default]] : []
    ),
  ) as Parameters<typeof cudaRows>[0];
  const rows = cudaRows({ ...values, python: "python3", "load-folder": "folder" });
  const named = rows.map(({ kind, name }) => `${kind} ${name}`);
  assert.deepEqual(named.slice(0, 13), [
    "step bfloat16",
    "step torchao:float8dq_e4m3_row",
    "step bitsandbytes:nf4",
    "step torchao:int8dq",
    "step bitsandbytes:int8",
    "attention with cuDNN",
    "attention without cuDNN",
    "decoder with cuDNN",
    "decoder without cuDNN",
    "offload bitsandbytes:nf4",
    "picture bitsandbytes:nf4",
    "torch eager",
    "torch compiled",
  ]);
  assert.equal(named.at(-1), "load nf4 from bfloat16");
  const rest = named.slice(13, -1);
  assert.deepEqual([rest.length, rest.every((name) => name.startsWith("step "))], [13, true]);
});

test("the command measures every row asked for, and one that fails takes no other with it", {
  skip,
}, () => {
  if (typeof standIn === "string") return;
  const { device, rows } = run(standIn.library, {});
  assert.match(device, /sm_90.*cuBLASLt 13\.1\.1, cuDNN 9\.20\.0/);
  assert.deepEqual(rows.map(({ kind, name }: Named) => `${kind} ${name}`), NAMES);
  for (const { kind, name, failed, warnings, isFinite, rowSeconds } of rows) {
    if (name === "torchao:nonsense") assert.match(failed, /nonsense/);
    else assert.deepEqual([failed, warnings, isFinite], [undefined, [], true], `${kind} ${name}`);
    assert.equal(failed === undefined, rowSeconds > 0);
  }
});

test(
  "with no time left the command says so of every row, and keeps that in its file",
  { skip },
  () => {
    if (typeof standIn === "string") return;
    const folder = mkdtempSync(join(tmpdir(), "halftone-bench-"));
    const found = run(standIn.library, { minutes: "0", name: "found", results: folder });
    assert.deepEqual(JSON.parse(readFileSync(join(folder, "found.json"), "utf8")), found);
    rmSync(folder, { recursive: true });
    const { rows } = found;
    const reasons = new Set(rows.map(({ failed }: Named) => failed));
    assert.deepEqual([rows.length, [...reasons]], [
      NAMES.length,
      ["not started: the time was used up"],
    ]);
  },
);

interface Named {
  readonly kind: string;
  readonly name: string;
  readonly failed?: string;
}
