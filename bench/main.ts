/**
 * The benchmarks, side by side with their peers.
 *
 *     deno task bench [SECTION ...] [--rounds 5] [--runtimes deno,bun] [--python PYTHON] [--native SD_CLI]
 *         [--models FOLDER] [--results FOLDER] [--tiny]
 *     deno task bench formats ...       the command line's own: halftone bench formats
 *
 * Without sections, all of them run; `--list` names them. Each runs in a process of its own under each
 * runtime, and its result goes to SECTION_RUNTIME.json in bench/results,
 * from which tools/generate_performance_doc.ts writes docs/performance.md.
 *
 * `--tiny` shows that the large sections run, at sizes that mean nothing: it needs folders of its own.
 *
 * Peers from npm are installed into bench/peers by its own lock file; PyTorch and Diffusers are those of --python,
 * --native is stable-diffusion.cpp's program. What is missing is reported.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runtimeName } from "../src/runtime/system.ts";
import { installPeers } from "./peers/packages.ts";
import { reportText } from "./suite/report.ts";
import { resultFile } from "./suite/results.ts";
import { SECTIONS, sectionsCalled } from "./suite/sections.ts";

const RUNTIME_COMMANDS: Readonly<Record<string, readonly string[]>> = {
  deno: ["run", "-A", "--no-check"],
  bun: [],
};

const pathOf = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const RESULTS = pathOf("./results");

if (process.argv[2] === "formats") {
  process.argv.splice(2, 0, "bench");
  await import("../cli/main.ts");
} else {
  runSuite();
}

function runSuite(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "5" },
      runtimes: { type: "string", default: "deno,bun" },
      python: { type: "string", default: "python3" },
      native: { type: "string", default: "sd-cli" },
      models: { type: "string", default: join(tmpdir(), "halftone-bench-models") },
      results: { type: "string", default: RESULTS },
      tiny: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
    },
  });
  if (values.list) return list();
  const { rounds, python, native, models, tiny } = values;
  if (tiny && values.results === RESULTS) throw new Error("--tiny needs a folder for --results");
  const options = JSON.stringify({ rounds: Number(rounds), python, native, models, tiny });
  installPeers();
  mkdirSync(values.results, { recursive: true });
  const runtimes = values.runtimes.split(",").filter(isThere);
  for (const name of chosen(positionals)) {
    const where = SECTIONS[name]!.perRuntime ? runtimes : runtimes.slice(0, 1);
    for (const runtime of where) runSection(name, runtime, options, values.results);
  }
}

function list(): void {
  for (const [name, { about }] of Object.entries(SECTIONS)) {
    console.log(`${name.padEnd(16)} ${about}`);
  }
}

function chosen(words: readonly string[]): string[] {
  if (words.length > 0) return words.flatMap(sectionsCalled);
  return Object.keys(SECTIONS).filter((name) => !SECTIONS[name]!.onlyByName);
}

function commandOf(runtime: string): string {
  return runtime === runtimeName() ? process.execPath : runtime;
}

function isThere(runtime: string): boolean {
  if (!(runtime in RUNTIME_COMMANDS)) throw new Error(`no runtime is called ${runtime}`);
  try {
    execFileSync(commandOf(runtime), ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    console.log(`MISSING ${runtime}: not on the PATH`);
    return false;
  }
}

function runSection(name: string, runtime: string, options: string, results: string): void {
  console.log(`${name} (${runtime}): ${SECTIONS[name]!.about}`);
  const file = join(results, resultFile(name, runtime));
  const unfinished = `${file}.part`;
  const words = [...RUNTIME_COMMANDS[runtime]!, pathOf("./suite/run_section.ts")];
  const { status } = spawnSync(commandOf(runtime), [...words, name, options, unfinished], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) {
    console.log(`  FAILED with code ${status}`);
    process.exitCode = 1;
    return;
  }
  renameSync(unfinished, file);
  console.log(reportText(JSON.parse(readFileSync(file, "utf8"))));
}
