/**
 * Quantizing one bfloat16 matrix to every format on two threads, beside the Python library (for GGUF
 * ggml's C) doing the same on as many: same matrix, same run, taking turns.
 *
 *     deno run -A bench/quantize.ts --python PYTHON --ggml FOLDER [--rows 3072] [--columns 12288]
 *         [--threads 2] [--rounds 5] [--only PATTERN] [--name quantize]
 *
 * FOLDER holds ggml's include/ and src/; without it GGUF has no peer. Prints a table; with --name the
 * numbers also go to bench/results/NAME.json. Seconds are medians; `cpu` counts the processor time of
 * all threads, which other work on the machine disturbs less than the clock.
 */

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createQuantizer } from "../src/quantization/auto.ts";
import { type QuantizeFormat, quantizeFormats } from "../src/quantization/formats.ts";
import { quantizeTensor } from "../src/quantization/gguf.ts";
import { GGUF_MIXES } from "../src/quantization/gguf_mixes.ts";
import { isGgufQuantType } from "../src/quantization/gguf_quantizers.ts";
import { createPause } from "../src/quantization/pause.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";
import { ScratchBytes } from "../src/tensor/scratch_bytes.ts";
import { median, thisMachine } from "./machine.ts";

/** Seconds of one quantization. */
interface Seconds {
  readonly wall: number;
  readonly cpu: number;
}

interface PeerAnswer extends Partial<Seconds> {
  readonly peer?: string;
}

const { values } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    ggml: { type: "string" },
    rows: { type: "string", default: "3072" },
    columns: { type: "string", default: "12288" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    only: { type: "string", default: "" },
    name: { type: "string" },
  },
});
const threads = Number(values.threads);
/** Where a loader has each weight and what is made of it, one after another. */
const scratch = new ScratchBytes();
const shape = [Number(values.rows), Number(values.columns)];
const matrix = randomMatrix(0, shape);
/** Just large enough for workers; brings and warms them, as the weights before do in a model. */
const small = randomMatrix(1, [256, 8192]);
const WARM_UPS = 4;

function randomMatrix(seed: number, shape: readonly number[]): HostTensor {
  return new TorchGenerator(seed).randn(shape).cast("bfloat16");
}

/** As a loader reads weights that are to be quantized: where the one before and its codes have been. */
function loaded({ dtype, shape, bytes }: HostTensor): HostTensor {
  scratch.reset();
  const place = scratch.shared.take(bytes.length);
  place.set(bytes);
  return new HostTensor(dtype, shape, place);
}

function pathOf(relative: string): string {
  return fileURLToPath(new URL(relative, import.meta.url));
}

/** A mix of GGUF quantizes one matrix as its main type does. */
function isMix(name: string): boolean {
  const [, base] = /^gguf:(\w+)_[SML]$/.exec(name) ?? [];
  return base !== undefined && base in GGUF_MIXES;
}

/** The Python process, which answers one line per line. */
function startPeer() {
  const options = ["--threads", values.threads, ...values.ggml ? ["--ggml", values.ggml] : []];
  const words = [pathOf("./peers/quantize.py"), ...shape.map(String), ...options];
  const peer = spawn(values.python, words, { stdio: ["pipe", "pipe", "ignore"] });
  const lines = createInterface({ input: peer.stdout })[Symbol.asyncIterator]();
  return {
    async measure(name: string): Promise<PeerAnswer> {
      peer.stdin.write(`${name}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`The peer ended: try ${values.python} ${words.join(" ")}`);
      return JSON.parse(value) as PeerAnswer;
    },
    end: () => peer.stdin.end(),
  };
}

function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** What makes a format of a matrix: the one weight layout, or a file's blocks, as ggml makes them. */
function quantizing({ fullName, config }: QuantizeFormat): (dense: HostTensor) => Promise<unknown> {
  const [method, name = ""] = fullName.split(":");
  if (method === "gguf" && isGgufQuantType(name)) {
    return (dense) => quantizeTensor(name, "weight", dense, createPause({ threads, scratch }));
  }
  const quantizer = createQuantizer(config(), { library: "diffusers", keepInFloat32: [] });
  return (dense) => quantizer.quantize("weight", dense, createPause({ threads, scratch }));
}

async function measureOurs(format: QuantizeFormat): Promise<Seconds> {
  const quantize = quantizing(format);
  for (let turn = 0; turn < WARM_UPS; turn++) await quantize(loaded(small));
  const dense = loaded(matrix);
  const [clock, processor] = [performance.now(), processorSeconds()];
  await quantize(dense);
  return { wall: (performance.now() - clock) / 1000, cpu: processorSeconds() - processor };
}

function middle(runs: readonly Partial<Seconds>[]) {
  const of = (key: keyof Seconds) => {
    const seconds = runs.flatMap((run) => run[key] ?? []);
    return seconds.length > 0 ? Number(median(seconds).toFixed(4)) : null;
  };
  return { wall: of("wall"), cpu: of("cpu") };
}

const formats = quantizeFormats().filter(({ fullName }) => {
  return new RegExp(values.only).test(fullName) && !isMix(fullName);
});
const peer = startPeer();
const results = [];
for (const format of formats) {
  const { fullName: name } = format;
  const ours: Seconds[] = [];
  const theirs: PeerAnswer[] = [];
  for (let round = 0; round <= Number(values.rounds); round++) {
    const [mine, other] = [await measureOurs(format), await peer.measure(name)];
    if (round > 0) [ours.push(mine), theirs.push(other)]; // the first one warms up
  }
  const [halftone, library] = [middle(ours), middle(theirs)];
  const ratio = library.cpu === null ? null : Number((halftone.cpu! / library.cpu).toFixed(3));
  results.push({ format: name, halftone, library, peer: theirs[0].peer ?? null, ratio });
  console.log(
    `${name.padEnd(26)} ${halftone.wall} s (cpu ${halftone.cpu})`.padEnd(54) +
      `${theirs[0].peer ?? "no peer"}: ${library.wall} s (cpu ${library.cpu})`.padEnd(62) +
      ` ratio ${ratio}`,
  );
}
peer.end();
if (values.name !== undefined) {
  const { python: _, ggml: __, name, only: ___, ...settings } = values;
  const result = { machine: thisMachine(), settings, results };
  writeFileSync(pathOf(`./results/${name}.json`), `${JSON.stringify(result, null, 2)}\n`);
}
