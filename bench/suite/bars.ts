/** What halftone wants to reach, and how it is read from the results. */

import type { Results } from "./results.ts";

/** A bar. */
export interface Bar {
  readonly about: string;
  /** The runtimes it is measured in. */
  readonly runtimes: readonly string[];
  readonly unit: "x" | "%" | "µs" | "MiB" | "KB";
  /** By runtime, or the same for all; null where it is reported only. */
  readonly must: number | null | Readonly<Record<string, number>>;
  readonly aim: number | Readonly<Record<string, number>>;
  /** undefined: not measured. */
  value(results: Results, runtime: string): number | undefined;
}

const EACH = ["deno", "bun"];
const ONCE = ["deno"];

/** The worst of some ratios: against the fastest peer, or of the slowest subject. */
function ratio(
  section: string,
  comparison: string,
  which: { subjects?: readonly string[]; peers?: readonly string[] },
): Bar["value"] {
  return (results, runtime) => {
    const found = results.ratios(section, runtime, comparison, which);
    const { subjects = [], peers = [] } = which;
    const isWhole = [...subjects].every((name) => found.some((one) => one.subject === name)) &&
      peers.every((name) => found.some((one) => one.peer === name));
    return isWhole && found.length > 0 ? Math.min(...found.map(({ wall }) => wall)) : undefined;
  };
}

/** The best of the subjects that round activations to int8. */
function bestInt8(section: string, comparison: string, peer: string): Bar["value"] {
  return (results, runtime) => {
    const found = results.ratios(section, runtime, comparison, { peers: [peer] })
      .filter(({ subject }) => subject.endsWith("int8"));
    return found.length > 0 ? Math.max(...found.map(({ wall }) => wall)) : undefined;
  };
}

function figure(section: string, name: string, unit = 1): Bar["value"] {
  return (results, runtime) => {
    const found = results.figure(section, runtime, name);
    return found && found.value / unit;
  };
}

const WEIGHT_ONLY = ["nf4", "int4 group 32", "Q4_K", "Q6_K", "fp8"];
const WEB_PEERS = ["onnxruntime-web", "jax-js", "tfjs-wasm"];
const BFLOAT16 = "mid-sized picture, one step, bfloat16";

/** All bars, in the order of the page. */
export const BARS: readonly Bar[] = [
  {
    about: "float32 linear 512 x 3072 x 3072, one thread, against the best of onnxruntime-web, " +
      "jax-js and tfjs-wasm",
    runtimes: EACH,
    unit: "x",
    must: { deno: 1.3, bun: 1.15 },
    aim: { deno: 1.6, bun: 1.4 },
    value: ratio("linear-float32", "float32 linear", { peers: WEB_PEERS }),
  },
  {
    about: "4-bit group-32 linear, int8 activations, against onnxruntime-web MatMulNBits",
    runtimes: EACH,
    unit: "x",
    must: 3,
    aim: 4,
    value: ratio("linear-int4", "4-bit linear", {
      subjects: ["halftone"],
      peers: ["onnxruntime-web"],
    }),
  },
  {
    about: "the same against native onnxruntime-node MatMulNBits",
    runtimes: EACH,
    unit: "x",
    must: 0.6,
    aim: 1,
    value: ratio("linear-int4", "4-bit linear", {
      subjects: ["halftone"],
      peers: ["onnxruntime-node"],
    }),
  },
  {
    about: "dynamic int8 linear against onnxruntime-web",
    runtimes: EACH,
    unit: "x",
    must: 1.25,
    aim: 1.45,
    value: ratio("linear-int8", "dynamic int8 linear", { peers: ["onnxruntime-web"] }),
  },
  {
    about: "the slowest of NF4, int4, Q4_K, Q6_K and fp8 weights at M = 768 against float32",
    runtimes: EACH,
    unit: "x",
    must: 0.85,
    aim: 0.97,
    value: ratio("linear-formats", "weight formats", { subjects: WEIGHT_ONLY }),
  },
  {
    about: "attention, 1,280 tokens x 24 heads x 128, against PyTorch, two threads each",
    runtimes: EACH,
    unit: "x",
    must: 0.3,
    aim: 0.6,
    value: ratio("attention", "attention", { peers: ["torch"] }),
  },
  {
    about: "whole picture, demo model, float32, against Diffusers float32",
    runtimes: EACH,
    unit: "x",
    must: 0.6,
    aim: 1,
    value: ratio("picture-demo", "demo picture", {
      subjects: ["halftone float32"],
      peers: ["Diffusers float32"],
    }),
  },
  {
    about: "whole picture, demo model, best int8-activation mode, against Diffusers float32",
    runtimes: EACH,
    unit: "x",
    must: 1,
    aim: 2,
    value: bestInt8("picture-demo", "demo picture", "Diffusers float32"),
  },
  {
    about:
      "whole picture, width 1024, 4 + 8 blocks, best int8-activation mode, against Diffusers float32",
    runtimes: EACH,
    unit: "x",
    must: 0.8,
    aim: 1.2,
    value: bestInt8("picture-mid", "mid-sized picture", "Diffusers float32"),
  },
  {
    about: "one step of the same against Diffusers bfloat16",
    runtimes: EACH,
    unit: "x",
    must: null,
    aim: 0.5,
    value: bestInt8("picture-mid", BFLOAT16, "Diffusers bfloat16"),
  },
  ...[
    ["NF4", "the float microkernel's rate"],
    ["NF4 in 16 bits, int8 activations", "the wide integer microkernel's rate"],
    ["Q4_0, int8 activations", "the narrow integer microkernel's rate"],
  ].map(([form, peak]): Bar => ({
    about: `a block pair of width 3072, ${form}: share of ${peak}`,
    runtimes: EACH,
    unit: "%",
    must: 70,
    aim: 85,
    value: figure("block-pair", `${form}: share`),
  })),
  {
    about: "peak memory of FLUX.1's whole shape beyond its weights",
    runtimes: ONCE,
    unit: "MiB",
    must: null,
    aim: 1024,
    value: figure("flux-schnell", "peak beyond weights", 2 ** 20),
  },
  {
    about: "two threads against one, float32 linear",
    runtimes: EACH,
    unit: "x",
    must: 1.5,
    aim: 2,
    value: ratio("threads", "threads, float32", {}),
  },
  {
    about: "the same of the float microkernel alone: what the processors give",
    runtimes: EACH,
    unit: "x",
    must: null,
    aim: 2,
    value: ratio("threads", "threads, float microkernel alone", {}),
  },
  {
    about: "a step of a tiny plan with its barrier, two threads",
    runtimes: EACH,
    unit: "µs",
    must: 20,
    aim: 5,
    value: figure("dispatch", "step, 2 threads"),
  },
  {
    about: "both builds of the WebAssembly module",
    runtimes: ONCE,
    unit: "KB",
    must: 600,
    aim: 250,
    value: figure("modules", "both modules", 1000),
  },
];

/** Whether less is better. */
export function wantsLess({ unit }: Bar): boolean {
  return unit === "µs" || unit === "MiB" || unit === "KB";
}

/** A bar's goal in a runtime. */
export function goal(
  value: number | null | Readonly<Record<string, number>>,
  runtime: string,
): number | null {
  return typeof value === "object" && value !== null ? value[runtime] ?? null : value;
}
