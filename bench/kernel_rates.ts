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

/** Kernels by their number in kernels-wasm/src/kernel_rates.rs. */
const KERNELS = [
  "float32",
  "4-bit groups of 32 x int8 (16-bit sums)",
  "int8 x int8, exact (32-bit sums)",
];
const SLICE_OPERATIONS = 4e7;
const MEMORY_PAGES = 64;

const rounds = Number(process.argv[2] ?? 300);
for (const strict of [false, true]) {
  const { name: build, module } = await compileKernels({ strict, shared: true });
  const limits = { initial: MEMORY_PAGES, maximum: 65536, shared: true };
  const kernels = await instantiateKernels(module, new WebAssembly.Memory(limits));
  const scratch = Math.ceil(kernels.__heap_base.value / 64) * 64;
  const rates = KERNELS.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (let kind = 0; kind < KERNELS.length; kind++) {
      const operations = kernels.run_microkernel(kind, 1, scratch);
      if (operations === 0) continue;
      const times = Math.ceil(SLICE_OPERATIONS / operations);
      const started = performance.now();
      kernels.run_microkernel(kind, times, scratch);
      const seconds = (performance.now() - started) / 1000;
      rates[kind].push(operations * times / seconds / 1e9);
    }
  }
  for (let kind = 0; kind < KERNELS.length; kind++) {
    const sorted = rates[kind].sort((a, b) => a - b);
    if (sorted.length === 0) continue;
    const middle = sorted[sorted.length >> 1].toFixed(1);
    console.log(
      `${runtimeName()} ${runtimeVersion()}, ${build}: ${KERNELS[kind].padEnd(40)} ` +
        `best ${sorted.at(-1)!.toFixed(1)}, median ${middle} GFLOP/s`,
    );
  }
}
