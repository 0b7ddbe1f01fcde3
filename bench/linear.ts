/**
 * How fast a linear layer runs on the wasm backend, by weight format and thread count.
 *
 *     deno run -A bench/linear.ts [m] [k] [n] [repetitions]
 *     bun bench/linear.ts ...
 *
 * On a busy machine the rate per processor second is the one to compare.
 */

import process from "node:process";
import { createWasmBackend } from "../src/backends/wasm/mod.ts";
import type { Backend, StoredWeight } from "../src/backends/backend.ts";
import type { ActivationMode } from "../src/ops/activation_mode.ts";
import type { ActivationOperand, Plan, WeightFormat } from "../src/plan/plan.ts";
import { packedBytes } from "../src/quantization/codes.ts";
import { groupCount, weightBytes } from "../src/quantization/layout_bytes.ts";
import type {
  QuantizedLayout,
  ScaleData,
  ScaleLayout,
} from "../src/quantization/quantized_tensor.ts";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";

interface Times {
  readonly wall: number[];
  readonly processor: number[];
}

interface Case {
  readonly name: string;
  readonly format: WeightFormat;
  readonly activations: ActivationMode;
}

const NF4_TABLE = Float32Array.from({ length: 16 }, (_, code) => Math.tanh((code - 7.5) / 5));
const float: ActivationMode = { kind: "float" };

function quantized(layout: Partial<QuantizedLayout>): WeightFormat {
  const scale = { kind: "float", dtype: "float32" } as const;
  const value = { kind: "integer", zeroPoint: 8 } as const;
  return {
    kind: "quantized",
    layout: { bits: 4, value, groupSize: 64, scale, offset: null, ...layout },
  };
}

/** Integer codes whose group scales are codes themselves, one float per 256 weights. */
function twoLevel(bits: number, groupSize: number, scaleBits: number, offset: boolean) {
  const scale = {
    kind: "coded",
    bits: scaleBits,
    value: { kind: "integer", zeroPoint: 0 },
    superGroupSize: 256 / groupSize,
    superDtype: "float16",
  } as const;
  const value = { kind: "integer", zeroPoint: offset ? 0 : 1 << (bits - 1) } as const;
  return quantized({ bits, value, groupSize, scale, offset: offset ? scale : null });
}

function cases(k: number): Case[] {
  const table = { kind: "table", table: NF4_TABLE } as const;
  const row = quantized({ bits: 8, value: { kind: "integer", zeroPoint: 128 }, groupSize: k });
  const fp8 = { kind: "table", table: new Float32Array(256).map((_, code) => code / 128) } as const;
  const outliers: ActivationMode = { kind: "llm_int8", threshold: 6 };
  return [
    { name: "float32", format: { kind: "dense", dtype: "float32" }, activations: float },
    { name: "bfloat16", format: { kind: "dense", dtype: "bfloat16" }, activations: float },
    { name: "nf4", format: quantized({ value: table }), activations: float },
    { name: "int4 group 32", format: quantized({ groupSize: 32 }), activations: float },
    { name: "Q4_K", format: twoLevel(4, 32, 6, true), activations: float },
    { name: "Q5_K", format: twoLevel(5, 32, 6, true), activations: float },
    { name: "Q6_K", format: twoLevel(6, 16, 8, false), activations: float },
    { name: "Q2_K", format: twoLevel(2, 16, 4, true), activations: float },
    {
      name: "fp8 table",
      format: quantized({ bits: 8, value: fp8, groupSize: k }),
      activations: float,
    },
    { name: "int8 row", format: row, activations: float },
    { name: "llm_int8", format: row, activations: outliers },
  ];
}

/** Random codes and scales; only their time matters. */
function randomWeight(shape: [number, number], format: WeightFormat): StoredWeight {
  if (format.kind === "dense") {
    const values = HostTensor.fromFloat32(randomFloats(shape[0] * shape[1]), shape);
    return { kind: "dense", tensor: values.cast(format.dtype) };
  }
  const { layout } = format;
  const groups = groupCount(shape, layout);
  const tensor = {
    shape,
    layout,
    codes: randomBytes(packedBytes(shape[0] * shape[1], layout.bits)),
    scale: randomScale(layout.scale, groups),
    offset: layout.offset && randomScale(layout.offset, groups),
  };
  return { kind: "quantized", tensor };
}

function randomScale(layout: ScaleLayout, groups: number): ScaleData {
  if (layout.kind === "float") {
    return { kind: "float", values: HostTensor.fromFloat32(randomFloats(groups)) };
  }
  const supers = HostTensor.fromFloat32(randomFloats(Math.ceil(groups / layout.superGroupSize)));
  return {
    kind: "coded",
    codes: randomBytes(packedBytes(groups, layout.bits)),
    supers: supers.cast(layout.superDtype),
    constant: 0,
  };
}

function randomBytes(count: number): Uint8Array {
  return Uint8Array.from({ length: count }, () => Math.random() * 256);
}

function randomFloats(count: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, () => Math.random() - 0.5);
}

/** A plan of one linear step, x [m, k] -> y [m, n]. */
function linearPlan(m: number, k: number, n: number, { format, activations }: Case): Plan {
  const xBytes = Math.ceil(m * k / 16) * 64;
  const yBytes = Math.ceil(m * n / 16) * 64;
  const operand = (buffer: number, shape: [number, number]): ActivationOperand => ({
    kind: "activation",
    buffer,
    dtype: "float32",
    offset: 0,
    shape,
    strides: [shape[1], 1],
  });
  const x = operand(0, [m, k]), y = operand(1, [m, n]);
  const bytes = weightBytes([n, k], format);
  return {
    name: "linear",
    buffers: [
      { role: "input", bytes: xBytes, offset: 0, firstStep: 0, lastStep: 0 },
      { role: "output", bytes: yBytes, offset: xBytes, firstStep: 0, lastStep: 0 },
    ],
    steps: [{
      op: "linear",
      attributes: { activation: "identity", activations },
      inputs: [x, { kind: "weight", weight: 0 }, null, null, null],
      output: y,
    }],
    weights: [{ name: "w", shape: [n, k], format, arrangement: "rows", bytes }],
    inputs: { x },
    outputs: { y },
    constants: [],
    arenaBytes: xBytes + yBytes,
    weightBytes: bytes,
    hash: "",
  };
}

/** Seconds on the clock and on the processors of each repetition, sorted. */
async function time(backend: Backend, plan: Plan, repetitions: number): Promise<Times> {
  const [weight] = plan.weights;
  const stored = randomWeight(weight.shape as [number, number], weight.format);
  const set = await backend.loadWeights(plan.weights, { read: () => Promise.resolve(stored) });
  const program = await backend.compile(plan, set);
  const [m, k] = plan.inputs.x.shape;
  program.write("x", HostTensor.fromFloat32(randomFloats(m * k), [m, k]));
  const wall: number[] = [];
  const processor: number[] = [];
  for (let i = 0; i <= repetitions; i++) {
    const start = performance.now();
    const used = process.cpuUsage();
    await program.run();
    const { user, system } = process.cpuUsage(used);
    if (i === 0) continue; // engines compile while they run
    wall.push((performance.now() - start) / 1000);
    processor.push((user + system) / 1e6);
  }
  program.release();
  await set.release();
  const sorted = (values: number[]) => values.sort((a, b) => a - b);
  return { wall: sorted(wall), processor: sorted(processor) };
}

const [m = 768, k = 3072, n = 3072, repetitions = 5] = process.argv.slice(2).map(Number);
console.log(`${runtimeName()} ${runtimeVersion()}: linear ${m} x ${k} x ${n}`);
for (const threads of [1, 2]) {
  const backend = await createWasmBackend({ threads });
  for (const testCase of cases(k)) {
    const { wall, processor } = await time(backend, linearPlan(m, k, n, testCase), repetitions);
    const rate = (value: number) => (2 * m * k * n / value / 1e9).toFixed(1).padStart(6);
    const middle = wall.length >> 1;
    console.log(
      `${threads} thread(s) ${testCase.name.padEnd(16)} median ${rate(wall[middle])}  best ${
        rate(wall[0])
      } GFLOP/s, ${rate(processor[middle])} GFLOP per processor second (${backend.build})`,
    );
  }
  await backend.close();
}
