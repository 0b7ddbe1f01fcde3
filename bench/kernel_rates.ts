/**
 * The rates of the microkernels alone, panels in the nearest cache: what whole layers can be held against.
 *
 *     deno run -A bench/kernel_rates.ts [rounds]
 *     bun bench/kernel_rates.ts ...
 *
 * Short slices, so that on a busy machine the best of them ran alone: that is the peak.
 */

import process from "node:process";
import { compileKernels, instantiateKernels } from "../src/backends/wasm/kernel_module.ts";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";
import { median } from "./machine.ts";

/** Kernels by their number in kernels-wasm/src/kernel_rates.rs, the float one first. */
const KERNELS = {
  float: "float32",
  narrow: "4-bit groups of 32 x int8 (16-bit sums)",
  wide: "int8 x int8, exact (32-bit sums)",
} as const;
const SLICE_OPERATIONS = 4e7;
const MEMORY_PAGES = 64;

/** A microkernel of linear layers. */
export type Microkernel = keyof typeof KERNELS;

/** Billions of operations per second. */
export interface KernelRate {
  readonly kernel: Microkernel;
  readonly about: string;
  readonly best: number;
  readonly median: number;
}

/** The microkernels of a build, to be measured as often as one likes. */
export interface KernelBench {
  readonly build: string;
  /** Rates over so many slices of each kernel. */
  measure(rounds: number): KernelRate[];
}

/** Opens the microkernels of a build. */
export async function openKernels({ strict }: { strict: boolean }): Promise<KernelBench> {
  const { name: build, module } = await compileKernels({ strict, shared: true });
  const run = await openMicrokernels(module);
  return { build, measure: (rounds) => measureKernels(rounds, run) };
}

/** Runs a microkernel so many times; returns the operations of one of them, 0 where the build lacks it. */
export type RunMicrokernel = (kind: number, times: number) => number;

/** The microkernels of a module, in a memory of their own. */
export async function openMicrokernels(module: WebAssembly.Module): Promise<RunMicrokernel> {
  const limits = { initial: MEMORY_PAGES, maximum: 65536, shared: true };
  const kernels = await instantiateKernels(module, new WebAssembly.Memory(limits));
  const scratch = Math.ceil(kernels.__heap_base.value / 64) * 64;
  return (kind, times) => kernels.run_microkernel(kind, times, scratch);
}

/** The rates of the microkernels that a build has; their slices take turns. */
function measureKernels(
  rounds: number,
  run: RunMicrokernel,
): KernelRate[] {
  const names = Object.keys(KERNELS) as Microkernel[];
  const samples = names.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [kind, rates] of samples.entries()) rates.push(...sliceRate(kind, run));
  }
  return names.flatMap((kernel, kind) => {
    const all = samples[kind]!;
    if (all.length === 0) return [];
    return [{ kernel, about: KERNELS[kernel], best: Math.max(...all), median: median(all) }];
  });
}

/** The rate of one slice; nothing where the build has no such kernel. */
function sliceRate(kind: number, run: RunMicrokernel): number[] {
  const operations = run(kind, 1);
  if (operations === 0) return [];
  const times = Math.ceil(SLICE_OPERATIONS / operations);
  const started = performance.now();
  run(kind, times);
  const seconds = (performance.now() - started) / 1000;
  return [operations * times / seconds / 1e9];
}

if (import.meta.main) {
  const rounds = Number(process.argv[2] ?? 300);
  for (const strict of [false, true]) {
    const { build, measure } = await openKernels({ strict });
    for (const { about, best, median } of measure(rounds)) {
      console.log(
        `${runtimeName()} ${runtimeVersion()}, ${build}: ${about.padEnd(40)} ` +
          `best ${best.toFixed(1)}, median ${median.toFixed(1)} GFLOP/s`,
      );
    }
  }
}
