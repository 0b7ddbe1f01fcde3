/**
 * A step of FLUX.1's transformer on an NVIDIA GPU, format by format: seconds of loading, of preparing the plan
 * with its graphs, and of a step, and bytes on the device against the plan. Random weights.
 *
 *     deno task bench:cuda [--double 19] [--single 38] [--size 1024] [--steps 5]
 *         [--formats bfloat16,bitsandbytes:nf4,...] [--resident-mib N] [--folder FOLDER]
 *         [--driver LIBRARY] [--name NAME]
 *
 * The first format is the measure of the others. Without --folder the checkpoint (24 GB at full size) goes to
 * a temporary folder that is deleted in the end. Prints one JSON object; with --name it also goes to
 * bench/results/NAME.json. Where there is no device it says so and ends.
 */

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createCudaBackend } from "../src/backends/cuda/mod.ts";
import { HalftoneError } from "../src/errors.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { openComponent } from "../src/pipelines/component.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import { median, thisMachine } from "./machine.ts";
import { OneStep } from "./one_step.ts";
import { fluxConfig, writeRandomTransformer } from "./random_transformer.ts";

const { values } = parseArgs({
  options: {
    double: { type: "string", default: "19" },
    single: { type: "string", default: "38" },
    heads: { type: "string", default: "24" },
    size: { type: "string", default: "1024" },
    steps: { type: "string", default: "5" },
    formats: {
      type: "string",
      default: "bfloat16,bitsandbytes:nf4,bitsandbytes:int8,torchao:int8wo,torchao:float8wo_e4m3",
    },
    "resident-mib": { type: "string" },
    folder: { type: "string" },
    driver: { type: "string" },
    name: { type: "string" },
  },
});
const config = fluxConfig(Number(values.double), Number(values.single), Number(values.heads));
const residentMib = values["resident-mib"];
const options = {
  driverLibrary: values.driver,
  residentWeightBytes: residentMib === undefined ? undefined : Number(residentMib) * 2 ** 20,
};

/** Seconds of an action, and its result. */
async function timed<Result>(action: () => Promise<Result>): Promise<[Result, number]> {
  const started = performance.now();
  return [await action(), (performance.now() - started) / 1000];
}

/** One format, "bfloat16" being the weights as they are. */
async function measure(folder: string, format: string) {
  const component = await openComponent(
    folder,
    "transformer",
    (json) => new FluxTransformer2DModel(json),
    format === "bfloat16" ? {} : { quantizationConfig: parseQuantizeFlag(format).config },
  );
  const step = new OneStep(await createCudaBackend(options), component, Number(values.size));
  try {
    const modulation = await step.modulation();
    const [, load] = await timed(() => step.load());
    const prepared = performance.now();
    return await step.step(modulation, async (program) => {
      const prepare = (performance.now() - prepared) / 1000;
      const seconds: number[] = [];
      for (let run = 0; run <= Number(values.steps); run++) {
        seconds.push((await timed(() => program.run()))[1]);
      }
      const { weightBytes, arenaBytes } = program.plan;
      return {
        format,
        isFinite: program.read("velocity").toFloat32().every(Number.isFinite),
        seconds: { load, prepare, firstStep: seconds[0]!, step: median(seconds.slice(1)) },
        bytes: {
          weights: weightBytes,
          arena: arenaBytes,
          plannedPeak: step.plannedPeak(),
          peak: step.backend.memory().peak,
        },
      };
    });
  } finally {
    await step.close();
  }
}

async function measureAll(device: string): Promise<void> {
  const folder = values.folder ?? mkdtempSync(join(tmpdir(), "halftone-cuda-"));
  try {
    const transformer = join(folder, "transformer");
    if (!existsSync(transformer)) await writeRandomTransformer(transformer, config);
    const formats = [];
    for (const format of values.formats.split(",")) formats.push(await measure(folder, format));
    const [first] = formats;
    const rows = formats.map((row) => ({
      ...row,
      timeOfFirst: row.seconds.step / first!.seconds.step,
    }));
    const settings = { size: values.size, steps: values.steps, residentMib };
    const result = { machine: thisMachine(), device, config, settings, formats: rows };
    const text = `${JSON.stringify(result, null, 2)}\n`;
    const path = new URL(`./results/${values.name}.json`, import.meta.url);
    if (values.name !== undefined) writeFileSync(path, text);
    console.log(text);
  } finally {
    if (values.folder === undefined) rmSync(folder, { recursive: true, force: true });
  }
}

/** The device, or null with the reason on standard error. */
async function findDevice(): Promise<string | null> {
  try {
    const backend = await createCudaBackend(options);
    await backend.close();
    return backend.description;
  } catch (error) {
    if (!(error instanceof HalftoneError) || error.code !== "backend_unavailable") throw error;
    console.error(`no device: ${error.message}`);
    return null;
  }
}

const device = await findDevice();
if (device !== null) await measureAll(device);
