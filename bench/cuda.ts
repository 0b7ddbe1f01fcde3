/**
 * FLUX.1 on an NVIDIA GPU with random weights: a step of the transformer format by format (seconds of planning,
 * of loading, of preparing the graphs and of a step, the host's processor time of a step, bytes on the device
 * against the plan), a step whose weights stream in, attention and the decoder with and without cuDNN, the bytes of a
 * whole picture with transformer and T5 in NF4, and PyTorch beside them.
 *
 *     deno task bench:cuda [--double 19] [--single 38] [--size 1024] [--steps 5]
 *         [--rows step,attention,...] [--formats bfloat16,bitsandbytes:nf4,...] [--precision bfloat16]
 *         [--offload-mib 2048] [--decoder-width 128] [--text-scale 1] [--load-folder FOLDER] [--python PYTHON]
 *         [--torch-device cuda] [--torch-modes eager,compiled] [--minutes N] [--row-minutes N]
 *         [--driver LIBRARY] [--cublas-lt LIBRARY] [--cudnn LIBRARY] [--name NAME] [--results FOLDER]
 *
 * The first step is the measure of the others. Weights of the formats are random codes made in memory.
 * With --load-folder a bfloat16 checkpoint (24 GB at full size) is written there unless it is there, and loading
 * it quantized to NF4 is timed. With --python a step of Diffusers' transformer in bfloat16, eager and compiled,
 * is timed too.
 *
 * Rows come by their importance. With --minutes no row starts after so many; with --row-minutes a row that takes
 * longer is stopped. A row that fails says why, and the next has a process of its own. Prints one JSON object; with
 * --name it also goes to NAME.json in bench/results or another folder, after every row, so that a run which is cut off
 * loses one row at most. Where there is no device it says so and ends.
 */

import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { backendOptions, configOf, cudaRows, ROW_OPTIONS } from "./cuda_plan.ts";
import { createCudaBackend } from "../src/backends/cuda/mod.ts";
import { HalftoneError } from "../src/errors.ts";
import { runtimeName } from "../src/runtime/system.ts";
import { thisMachine } from "./machine.ts";
import { RowLog } from "./row_log.ts";
import { runRows, serveRows } from "./row_process.ts";

const started = performance.now();
const { values } = parseArgs({
  options: {
    ...ROW_OPTIONS,
    minutes: { type: "string", default: "Infinity" },
    "row-minutes": { type: "string" },
    name: { type: "string" },
    results: { type: "string", default: fileURLToPath(new URL("./results", import.meta.url)) },
    // The process that measures: rows are asked for by number.
    serve: { type: "boolean", default: false },
  },
});
const rows = cudaRows(values);

/** Options that say where things are here. */
const OF_THIS_MACHINE = ["driver", "cublas-lt", "cudnn", "python", "name", "results", "serve"];

async function measureAll(device: string): Promise<void> {
  const settings = Object.fromEntries(
    Object.entries(values).filter(([name]) => !OF_THIS_MACHINE.includes(name)),
  );
  const head = { machine: thisMachine(), device, config: configOf(values), settings };
  const { name, results, minutes, "row-minutes": rowMinutes } = values;
  const log = new RowLog(head, rows, name === undefined ? null : join(results, `${name}.json`));
  const runtime = runtimeName() === "deno" ? ["run", "-A", "--no-check"] : [];
  const words = [fileURLToPath(import.meta.url), ...process.argv.slice(2), "--serve"];
  await runRows(rows.length, {
    command: [process.execPath, ...runtime, ...words],
    isOver: () => performance.now() - started >= Number(minutes) * 60_000,
    rowSeconds: rowMinutes === undefined ? undefined : Number(rowMinutes) * 60,
    starts: (index) => console.error(rows[index]!.kind, rows[index]!.name),
    record: (index, outcome) => log.record(index, outcome),
  });
  console.log(log.text());
}

/** The device, or null with the reason on standard error. */
async function findDevice(): Promise<string | null> {
  try {
    const backend = await createCudaBackend(backendOptions(values));
    const { description } = backend; // a closed one has no libraries any more
    await backend.close();
    return description;
  } catch (error) {
    if (!(error instanceof HalftoneError) || error.code !== "backend_unavailable") throw error;
    console.error(`no device: ${error.message}`);
    return null;
  }
}

if (values.serve) await serveRows(rows);
else {
  const device = await findDevice();
  if (device !== null) await measureAll(device);
}
