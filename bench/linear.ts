/**
 * How fast a linear layer runs on the wasm backend, by weight format and thread count.
 *
 *     deno run -A bench/linear.ts [m] [k] [n] [repetitions]
 *     bun bench/linear.ts ...
 *
 * On a busy machine the rate per processor second is the one to compare.
 */

import process from "node:process";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";
import { createWasmBackend } from "../src/backends/wasm/mod.ts";
import { linearWork, openLinear } from "./one_program.ts";
import { type Sample, spread } from "./suite/measure.ts";
import { integerCases, weightCases } from "./weight_cases.ts";

const [m = 768, k = 3072, n = 3072, repetitions = 5] = process.argv.slice(2).map(Number);
const shape = { m, k, n };
const rate = (seconds: number) => (linearWork(shape).amount / seconds / 1e9).toFixed(1).padStart(6);

console.log(`${runtimeName()} ${runtimeVersion()}: linear ${m} x ${k} x ${n}`);
for (const threads of [1, 2]) {
  // One memory for all cases: Bun is slower in the ninth and later ones of a process.
  const backend = await createWasmBackend({ threads });
  for (const testCase of [...weightCases(k), ...integerCases(k)]) {
    const contender = await openLinear(testCase.name, shape, testCase, { threads, backend });
    await contender.run(0); // engines compile while they run
    const samples: Sample[] = [];
    for (let i = 1; i <= repetitions; i++) samples.push(await contender.run(i));
    const wall = spread(samples.map((sample) => sample.wall));
    const processor = spread(samples.map((sample) => sample.processor));
    console.log(
      `${threads} thread(s) ${testCase.name.padEnd(22)} median ${rate(wall.median)}  best ${
        rate(wall.least)
      } GFLOP/s, ${rate(processor.median)} GFLOP per processor second`,
    );
  }
  await backend.close();
}
