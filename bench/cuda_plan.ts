/** Which rows the benchmark on an NVIDIA GPU has, the most important first, as a device may be lent for minutes only. */

import type { CudaBackendOptions } from "../src/backends/cuda/mod.ts";
import type { MatmulPrecision } from "../src/backends/cuda/matmul_precision.ts";
import {
  measureAttention,
  measureDecoder,
  measureLoad,
  measureStep,
  measureTorch,
} from "./cuda_rows.ts";
import { measurePicture } from "./cuda_picture.ts";
import { fluxConfig } from "./random_transformer.ts";
import type { Row } from "./row_log.ts";

/** Who is told of what is slow. */
type Warn = (message: string) => void;

/** Formats by their importance. */
const FORMATS = [
  "bfloat16",
  "torchao:float8dq_e4m3_row",
  "bitsandbytes:nf4",
  "torchao:int8dq",
  "bitsandbytes:int8",
  "torchao:int4wo",
  "torchao:int8wo",
  "torchao:float8wo_e4m3",
  "torchao:float8dq",
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
/** How many of them come before everything else. */
const FIRST_FORMATS = 5;

/** The options of the command that say what is measured, for `parseArgs`. */
export const ROW_OPTIONS = {
  double: { type: "string", default: "19" },
  single: { type: "string", default: "38" },
  heads: { type: "string", default: "24" },
  size: { type: "string", default: "1024" },
  steps: { type: "string", default: "5" },
  rows: { type: "string", default: "step,attention,decoder,offload,picture,torch,load" },
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
} as const;

/** Their values. */
export type RowValues =
  & { readonly [name in keyof typeof ROW_OPTIONS]?: string }
  & { readonly [name in "rows" | "formats" | "torch-modes" | "torch-device"]: string };

/** The transformer. */
export function configOf({ double, single, heads }: RowValues) {
  return fluxConfig(Number(double), Number(single), Number(heads));
}

/** Options of the backend. */
export function backendOptions(values: RowValues): CudaBackendOptions {
  return {
    driverLibrary: values.driver,
    cublasLtLibrary: values["cublas-lt"],
    cudnnLibrary: values.cudnn,
    matmulPrecision: values.precision as MatmulPrecision,
  } as CudaBackendOptions;
}

/** All rows in their order. */
export function cudaRows(values: RowValues): Row[] {
  const early = FORMATS.slice(0, FIRST_FORMATS);
  const isEarly = (format: string) => early.includes(format);
  const formats = values.formats.split(",");
  const kinds = values.rows.split(",");
  const rows = [
    ...stepRows(values, formats.filter(isEarly)),
    ...partRows(values),
    ...wholeRows(values),
    ...torchRows(values),
    ...stepRows(values, formats.filter((format) => !isEarly(format))),
    ...loadRows(values),
  ];
  return rows.filter(({ kind }) => kinds.includes(kind));
}

function sizesOf({ size, steps }: RowValues) {
  return { pixels: Number(size), runs: Number(steps) };
}

function stepRows(values: RowValues, formats: readonly string[]): Row[] {
  return formats.map((format) => ({
    kind: "step",
    name: format,
    measure: (onWarning) =>
      measureStep(
        configOf(values),
        format,
        { ...backendOptions(values), onWarning },
        sizesOf(values),
      ),
  }));
}

/** Attention and the decoder, with cuDNN and without. */
function partRows(values: RowValues): Row[] {
  const options = backendOptions(values);
  const sizes = sizesOf(values);
  const own = { ...options, cudnnLibrary: false } as const;
  const shape = { heads: Number(values.heads), size: 128 };
  const width = Number(values["decoder-width"]);
  const ways = [["with cuDNN", options], ["without cuDNN", own]] as const;
  return [
    ...ways.map(([name, used]) => ({
      kind: "attention",
      name,
      measure: (onWarning: Warn) => measureAttention(shape, { ...used, onWarning }, sizes),
    })),
    ...ways.map(([name, used]) => ({
      kind: "decoder",
      name,
      measure: (onWarning: Warn) => measureDecoder(width, { ...used, onWarning }, sizes),
    })),
  ];
}

/** A step whose weights stream in, and a whole picture. */
function wholeRows(values: RowValues): Row[] {
  const [name, config, sizes] = ["bitsandbytes:nf4", configOf(values), sizesOf(values)] as const;
  const options = backendOptions(values);
  const offload = {
    ...options,
    residentWeightBytes: Number(values["offload-mib"]) * 2 ** 20,
  };
  const flux = {
    transformer: config,
    textScale: Number(values["text-scale"]),
    decoderWidth: Number(values["decoder-width"]),
  };
  return [
    {
      kind: "offload",
      name,
      measure: (onWarning) => measureStep(config, name, { ...offload, onWarning }, sizes),
    },
    {
      kind: "picture",
      name,
      measure: (onWarning) => measurePicture(flux, name, { ...options, onWarning }, sizes),
    },
  ];
}

function torchRows(values: RowValues): Row[] {
  const { python, "torch-device": device, "torch-modes": modes } = values;
  if (python === undefined) return [];
  const [config, sizes] = [configOf(values), sizesOf(values)];
  return modes.split(",").map((name) => ({
    kind: "torch",
    name,
    measure: () => measureTorch(python, device, name, config, sizes),
  }));
}

function loadRows(values: RowValues): Row[] {
  const { "load-folder": folder } = values;
  if (folder === undefined) return [];
  const measure = (onWarning: Warn) =>
    measureLoad(configOf(values), folder, { ...backendOptions(values), onWarning });
  return [{ kind: "load", name: "nf4 from bfloat16", measure }];
}
