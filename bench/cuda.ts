/**
 * FLUX.1 on an NVIDIA GPU with random weights: a step of the transformer format by format (seconds of planning,
 * of loading, of preparing the graphs and of a step, the host's processor time of a step, bytes on the device
 * against the plan), a step whose weights stream in, attention and the decoder with and without cuDNN, the bytes of a
 * whole picture with transformer and T5 in NF4, and PyTorch beside them.
 *
 *     deno task bench:cuda [--double 19] [--single 38] [--size 1024] [--steps 5]
 *         [--formats bfloat16,bitsandbytes:nf4,...] [--precision bfloat16] [--offload-mib 2048]
 *         [--decoder-width 128] [--text-scale 1] [--load-folder FOLDER] [--python PYTHON] [--torch-device cuda]
 *         [--torch-modes eager,compiled]
 *         [--driver LIBRARY] [--cublas-lt LIBRARY] [--cudnn LIBRARY] [--name NAME]
 *
 * The first format is the measure of the others. Weights of the formats are random codes made in memory.
 * With --load-folder a bfloat16 checkpoint (24 GB at full size) is written there unless it is there, and loading
 * it quantized to NF4 is timed. With --python a step of Diffusers' transformer in bfloat16, eager and compiled,
 * is timed too. Prints one JSON object; with --name it also goes to bench/results/NAME.json. Where there is no
 * device it says so and ends.
 */

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import {
  measureAttention,
  measureDecoder,
  measureLoad,
  measureStep,
  measureTorch,
} from "./cuda_rows.ts";
import { measurePicture } from "./cuda_picture.ts";
import { createCudaBackend } from "../src/backends/cuda/mod.ts";
import type { MatmulPrecision } from "../src/backends/cuda/matmul_precision.ts";
import { HalftoneError } from "../src/errors.ts";
import { thisMachine } from "./machine.ts";
import { fluxConfig } from "./random_transformer.ts";

const FORMATS = [
  "bfloat16",
  "bitsandbytes:nf4",
  "bitsandbytes:int8",
  "torchao:int4wo",
  "torchao:int8wo",
  "torchao:float8wo_e4m3",
  "torchao:int8dq",
  "torchao:float8dq",
  "torchao:float8dq_e4m3_row",
  "gguf:Q8_0",
  "gguf:Q4_0",
  "gguf:Q4_1",
  "gguf:Q2_K",
  "gguf:Q3_K",
  "gguf:Q4_K",
  "gguf:Q5_K",
  "gguf:Q6_K",
  "gguf:IQ4_NL",
];

const { values } = parseArgs({
  options: {
    double: { type: "string", default: "19" },
    single: { type: "string", default: "38" },
    heads: { type: "string", default: "24" },
    size: { type: "string", default: "1024" },
    steps: { type: "string", default: "5" },
    formats: { type: "string", default: FORMATS.join() },
    precision: { type: "string", default: "bfloat16" },
    "offload-mib": { type: "string", default: "2048" },
    "decoder-width": { type: "string", default: "128" },
    "text-scale": { type: "string", default: "1" },
    "load-folder": { type: "string" },
    python: { type: "string" },
    "torch-device": { type: "string", default: "cuda" },
    "torch-modes": { type: "string", default: "eager,compiled" },
    driver: { type: "string" },
    "cublas-lt": { type: "string" },
    cudnn: { type: "string" },
    name: { type: "string" },
  },
});

/** Options that say where things are here. */
const OF_THIS_MACHINE = ["driver", "cublas-lt", "cudnn", "python", "name"];

const options = {
  driverLibrary: values.driver,
  cublasLtLibrary: values["cublas-lt"],
  cudnnLibrary: values.cudnn,
  matmulPrecision: values.precision as MatmulPrecision,
};
const sizes = { pixels: Number(values.size), runs: Number(values.steps) };
const config = fluxConfig(Number(values.double), Number(values.single), Number(values.heads));

async function measureAll(device: string): Promise<void> {
  const formats = [];
  for (const format of values.formats.split(",")) {
    formats.push(await row(format, () => measureStep(config, format, options, sizes)));
  }
  const first = formats[0]?.seconds?.step;
  const residentWeightBytes = Number(values["offload-mib"]) * 2 ** 20;
  const offload = { ...options, residentWeightBytes };
  const width = Number(values["decoder-width"]);
  const attentionShape = { heads: Number(values.heads), size: 128 };
  const own = { ...options, cudnnLibrary: false } as const;
  const folder = values["load-folder"];
  const { python, "torch-device": torchDevice } = values;
  const torch = [];
  for (const mode of python === undefined ? [] : values["torch-modes"].split(",")) {
    const measure = () => measureTorch(python!, torchDevice, mode, config, sizes);
    torch.push(await row(`torch ${mode}`, measure));
  }
  const settings = Object.fromEntries(
    Object.entries(values).filter(([name]) => !OF_THIS_MACHINE.includes(name)),
  );
  const result = {
    machine: thisMachine(),
    device,
    config,
    settings,
    formats: formats.map((found) => ({
      ...found,
      timeOfFirst: first && found.seconds && found.seconds.step / first,
    })),
    offload: await row("bitsandbytes:nf4", (name) => measureStep(config, name, offload, sizes)),
    attention: [
      await row("attention", () => measureAttention(attentionShape, options, sizes)),
      await row("attention without cuDNN", () => measureAttention(attentionShape, own, sizes)),
    ],
    decoder: [
      await row("vae.decode", () => measureDecoder(width, options, sizes)),
      await row("vae.decode without cuDNN", () => measureDecoder(width, own, sizes)),
    ],
    picture: await row("bitsandbytes:nf4", (name) =>
      measurePicture(
        { transformer: config, textScale: Number(values["text-scale"]), decoderWidth: width },
        name,
        options,
        sizes,
      )),
    load: folder && await row("nf4 from bfloat16", () => measureLoad(config, folder, options)),
    torch,
  };
  const text = `${JSON.stringify(result, null, 2)}\n`;
  if (values.name !== undefined) {
    writeFileSync(new URL(`./results/${values.name}.json`, import.meta.url), text);
  }
  console.log(text);
}

/** A row that could not be had. */
interface Failed {
  readonly failed: string;
  readonly seconds?: undefined;
}

/** A row with its name; one that cannot be had says why, and the others go on. */
async function row<Row extends object>(
  name: string,
  measure: (name: string) => Promise<Row>,
): Promise<{ readonly name: string } & (Row | Failed)> {
  console.error(name);
  try {
    return { name, ...await measure(name) };
  } catch (error) {
    return { name, failed: error instanceof Error ? error.message : String(error) };
  }
}

/** The device, or null with the reason on standard error. */
async function findDevice(): Promise<string | null> {
  try {
    const backend = await createCudaBackend(options);
    const { description } = backend; // a closed one has no libraries any more
    await backend.close();
    return description;
  } catch (error) {
    if (!(error instanceof HalftoneError) || error.code !== "backend_unavailable") throw error;
    console.error(`no device: ${error.message}`);
    return null;
  }
}

const device = await findDevice();
if (device !== null) await measureAll(device);
