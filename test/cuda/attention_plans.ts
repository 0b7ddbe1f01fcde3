/**
 * Prints what NVIDIA's own cuDNN plans for attention on described devices, as JSON; a process of its own, as
 * the driver that compiles without a GPU must be the only one. The library's path is the argument.
 */

import process from "node:process";
import { CudnnCalls } from "../../src/backends/cuda/cudnn_calls.ts";
import { compilerParts } from "../../src/backends/cuda/library_paths.ts";
import { preloadLibrary } from "../../src/runtime/foreign.ts";
import { attentionProblem } from "./dnn_problems.ts";
import { describedPlans } from "./described_device.ts";

const library = process.argv.at(-1)!;
(await compilerParts(library)).forEach(preloadLibrary);
const calls = new CudnnCalls(library);
const PROBLEMS = {
  "FLUX.1 at 1024x1024": attentionProblem(
    { heads: 24, size: 128, queries: 4608, keys: 4608 },
    "bfloat16",
  ),
  "FLUX.1 at 1024x1024, beside an MLP's rows": {
    ...attentionProblem({ heads: 24, size: 128, queries: 4608, keys: 4608 }, "bfloat16"),
    outputStride: 15360,
  },
  "heads of 64, odd counts": attentionProblem(
    { heads: 3, size: 64, queries: 77, keys: 131 },
    "float16",
  ),
  "the decoder's one head": attentionProblem(
    { heads: 1, size: 512, queries: 16384, keys: 16384 },
    "bfloat16",
  ),
};
const TIMED: keyof typeof PROBLEMS = "FLUX.1 at 1024x1024";
const found = (["A100", "H200", "RTX 5090"] as const).map((device) => [
  device,
  Object.fromEntries(
    Object.entries(PROBLEMS).map(([name, problem]) => {
      const most = name === TIMED ? 4 : 1; // each takes its time to compile
      return [name, describedPlans(calls, device, problem, { most })];
    }),
  ),
]);
console.log(JSON.stringify(Object.fromEntries(found)));
