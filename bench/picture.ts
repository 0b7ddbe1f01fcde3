/**
 * A whole picture, halftone beside Diffusers on the CPU: same checkpoint, prompt, seed, steps and
 * threads, in one run. The two take turns, each time in a fresh process that draws the picture
 * twice: the first one is cold (halftone plans, PyTorch warms up), the second one is counted.
 *
 *     deno run -A bench/picture.ts FOLDER --python PYTHON [--rounds 3] [--threads 2]
 *         [--width 128] [--height 128] [--steps 4] [--max-sequence-length 32] [--name NAME]
 *
 * Prints one JSON object; with --name it also goes to bench/results/NAME.json.
 */

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { basename } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median, thisMachine } from "./machine.ts";

interface Repeat {
  readonly seconds: number;
}

interface PeerReport {
  readonly load_seconds: number;
  readonly repeats: readonly Repeat[];
  readonly torch?: string;
  readonly diffusers?: string;
}

/** A process that drew the picture twice. */
interface Run {
  readonly processSeconds: number;
  readonly report: PeerReport;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    rounds: { type: "string", default: "3" },
    name: { type: "string" },
    threads: { type: "string", default: "2" },
    width: { type: "string", default: "128" },
    height: { type: "string", default: "128" },
    steps: { type: "string", default: "4" },
    "max-sequence-length": { type: "string", default: "32" },
  },
});
const folder = positionals[0]!;
const shared = [
  ...(["threads", "width", "height", "steps", "max-sequence-length"] as const)
    .flatMap((name) => [`--${name}`, values[name]]),
  ...["--seed", "0", "--repeats", "2"],
];

function pathOf(relative: string): string {
  return fileURLToPath(new URL(relative, import.meta.url));
}

function run(command: string, words: readonly string[]): Run {
  const started = performance.now();
  const output = execFileSync(command, words, { encoding: "utf8", maxBuffer: 2 ** 26 });
  const report = JSON.parse(output.trim().split("\n").at(-1)!) as PeerReport;
  return { processSeconds: (performance.now() - started) / 1000, report };
}

function runHalftone(): Run {
  const runtime = "Deno" in globalThis ? ["run", "-A"] : [];
  const script = pathOf("./halftone_picture.ts");
  return run(process.execPath, [...runtime, script, folder, ...shared]);
}

function runDiffusers(): Run {
  return run(values.python, [pathOf("./peers/diffusers_picture.py"), folder, ...shared]);
}

function summary(runs: readonly Run[]) {
  const seconds = (pick: (run: Run) => number) => median(runs.map(pick));
  return {
    warmSeconds: seconds(({ report }) => report.repeats[1]!.seconds),
    /** The least of all, which other work on the machine disturbs least. */
    bestSeconds: Math.min(...runs.flatMap(({ report }) => report.repeats.map((r) => r.seconds))),
    coldSeconds: seconds(({ report }) => report.repeats[0]!.seconds),
    loadSeconds: seconds(({ report }) => report.load_seconds),
    runs: runs.map(({ report }) => report.repeats),
  };
}

const halftone: Run[] = [];
const diffusers: Run[] = [];
for (let round = 0; round < Number(values.rounds); round++) {
  halftone.push(runHalftone());
  diffusers.push(runDiffusers());
}
const [ours, theirs] = [summary(halftone), summary(diffusers)];
const { torch, diffusers: version } = diffusers[0]!.report;
const { python: _, name, ...settings } = values;
const result = {
  machine: thisMachine(),
  model: basename(folder),
  settings,
  versions: { torch, diffusers: version },
  halftone: ours,
  diffusers: theirs,
  /** Over 1: halftone is slower. */
  ratio: ours.warmSeconds / theirs.warmSeconds,
  ratioOfBest: ours.bestSeconds / theirs.bestSeconds,
};
const text = `${JSON.stringify(result, null, 2)}\n`;
if (name !== undefined) writeFileSync(pathOf(`./results/${name}.json`), text);
console.log(text);
