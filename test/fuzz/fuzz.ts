/**
 * Fuzzes every reader of untrusted input for as long as wanted.
 *
 *     deno task fuzz [--executions N] [--seed S] [--target NAME] [--dump FILE]
 *
 * The executions are shared out among the targets (those whose name contains NAME). An input must be
 * read or refused with a HalftoneError, within a second, without more than 64 MiB beyond its own
 * size; one that is not is kept under test/fuzz/corpus, which the tests read again. `--dump` writes
 * every safetensors mutant and its verdict as a line of JSON, for compare_with_python.py.
 */

import { Buffer } from "node:buffer";
import { appendFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { keepInput } from "./corpus.ts";
import { Random } from "./random.ts";
import { fuzz, type FuzzReport } from "./run.ts";
import { observe } from "./target.ts";
import { fuzzTargets } from "./targets/mod.ts";
import { SAFETENSORS_TARGET } from "./targets/safetensors.ts";

const { values } = parseArgs({
  options: {
    executions: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    target: { type: "string", default: "" },
    dump: { type: "string" },
  },
});
const [executions, seed] = [Number(values.executions), Number(values.seed)];

function print(report: FuzzReport): void {
  const { target, executions, accepted, failures, seconds } = report;
  const rate = Math.round(executions / seconds);
  console.log(
    `${target}: ${executions} executions, ${accepted} read, ${failures.length} failures, ${rate}/s`,
  );
  const kinds = new Set<string>();
  for (const { seed, error, input } of failures) {
    // One of each kind is enough: the same sentence about other numbers is the same fault.
    const kind = String(error).replaceAll(/\d+/g, "");
    if (kinds.has(kind)) continue;
    kinds.add(kind);
    const failure = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    const file = keepInput({ target, seed, failure, input });
    const place = error instanceof Error ? error.stack?.split("\n").slice(1, 4).join("\n") : "";
    console.log(`  seed ${seed}: ${failure}\n  kept as ${file}\n${place}`);
  }
}

async function fuzzAll(): Promise<void> {
  const targets = (await fuzzTargets()).filter(({ name }) => name.includes(values.target));
  const shares = targets.reduce((sum, { slowness = 1 }) => sum + 1 / slowness, 0);
  let [total, failed] = [0, 0];
  for (const target of targets) {
    const share = executions / shares / (target.slowness ?? 1);
    const report = await fuzz(target, Math.ceil(share), seed);
    print(report);
    total += report.executions;
    failed += report.failures.length;
  }
  console.log(`${targets.length} targets: ${total} executions, ${failed} failures`);
  if (failed > 0) process.exitCode = 1;
}

async function dump(file: string): Promise<void> {
  writeFileSync(file, "");
  for (let index = 0; index < executions; index++) {
    const input = SAFETENSORS_TARGET.make(new Random(seed + index));
    const accepted = await observe(SAFETENSORS_TARGET, input);
    const line = { hex: Buffer.from(input).toString("hex"), accepted };
    appendFileSync(file, `${JSON.stringify(line)}\n`);
  }
}

await (values.dump === undefined ? fuzzAll() : dump(values.dump));
