/** Fails when the committed CUDA kernels were built from other sources than those here. */

import process from "node:process";
import { CUDA_SOURCE_HASH } from "../src/backends/cuda/generated/source_hash.ts";
import { cudaSourceHash } from "./cuda_source_hash.ts";

if (cudaSourceHash() !== CUDA_SOURCE_HASH) {
  console.error("The CUDA kernels are stale: run kernels-cuda/build.sh");
  process.exit(1);
}
