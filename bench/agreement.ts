/**
 * How far halftone is from Diffusers, float32 on the CPU: every golden run of test/goldens, on both
 * backends. The tests hold these numbers to their bounds; this prints them.
 *
 *     deno run -A bench/agreement.ts [--name NAME]
 *
 * With --name the JSON object also goes to bench/results/NAME.json.
 */

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { FluxPipeline } from "../src/pipelines/flux.ts";
import {
  goldenErrors,
  goldenNames,
  type GoldenRun,
  readGolden,
} from "../test/pipelines/goldens.ts";
import { thisMachine } from "./machine.ts";

const BACKENDS = ["reference", "wasm"] as const;

const { values } = parseArgs({ options: { name: { type: "string" } } });

async function errorsOn(golden: GoldenRun, backend: typeof BACKENDS[number]) {
  await using pipeline = await FluxPipeline.fromPretrained(golden.folder, { backend });
  const { latents, psnr } = goldenErrors(golden, await pipeline.generate(golden.options));
  return { latents, psnr: Math.min(psnr, 999) }; // JSON knows no infinity: the bytes are equal
}

const runs: Record<string, unknown>[] = [];
const worst = { reference: { latents: 0, psnr: 999 }, wasm: { latents: 0, psnr: 999 } };
for (const name of goldenNames()) {
  const golden = readGolden(name);
  const row: Record<string, unknown> = { name };
  for (const backend of BACKENDS) {
    const errors = await errorsOn(golden, backend);
    row[backend] = errors;
    worst[backend].latents = Math.max(worst[backend].latents, errors.latents);
    worst[backend].psnr = Math.min(worst[backend].psnr, errors.psnr);
  }
  runs.push(row);
}
const text = `${JSON.stringify({ machine: thisMachine(), worst, runs }, null, 2)}\n`;
if (values.name !== undefined) {
  writeFileSync(new URL(`./results/${values.name}.json`, import.meta.url), text);
}
console.log(text);
