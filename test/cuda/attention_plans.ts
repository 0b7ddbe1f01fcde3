/**
 * Prints what NVIDIA's own cuDNN plans for attention on described devices, as JSON; a process of its own, as
 * the driver that compiles without a GPU must be the only one. The library's path is the argument.
 */

import process from "node:process";
import { CudnnCalls } from "../../src/backends/cuda/cudnn_calls.ts";
import type { AttentionProblem } from "../../src/backends/cuda/dnn_problem.ts";
import { compilerParts } from "../../src/backends/cuda/library_paths.ts";
import { preloadLibrary } from "../../src/runtime/foreign.ts";
import { plannedWorkspace } from "./described_device.ts";

const library = process.argv.at(-1)!;
(await compilerParts(library)).forEach(preloadLibrary);
const calls = new CudnnCalls(library);
const common = { kind: "attention", scale: 0.125, workspaceBytes: 2 ** 25 } as const;
const PROBLEMS: Readonly<Record<string, AttentionProblem>> = {
  "FLUX.1 at 1024x1024": {
    ...common,
    type: "bfloat16",
    heads: 24,
    size: 128,
    queries: 4608,
    keys: 4608,
  },
  "heads of 64, odd counts": {
    ...common,
    type: "float16",
    heads: 3,
    size: 64,
    queries: 77,
    keys: 131,
  },
  "the decoder's one head": {
    ...common,
    type: "bfloat16",
    heads: 1,
    size: 512,
    queries: 16384,
    keys: 16384,
  },
};
const found = (["A100", "H200", "RTX 5090"] as const).map((device) => [
  device,
  Object.fromEntries(
    Object.entries(PROBLEMS).map((
      [name, problem],
    ) => [name, plannedWorkspace(calls, device, problem)]),
  ),
]);
console.log(JSON.stringify(Object.fromEntries(found)));
