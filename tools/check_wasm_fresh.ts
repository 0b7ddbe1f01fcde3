/** Fails when the committed WebAssembly modules were built from other sources than those here. */

import process from "node:process";
import { KERNEL_SOURCE_HASH } from "../src/backends/wasm/generated/source_hash.ts";
import { QUANTIZE_SOURCE_HASH } from "../src/quantization/generated/quantize_kernels.ts";
import { kernelSourceHash, quantizeSourceHash } from "./kernel_source_hash.ts";

if (kernelSourceHash() !== KERNEL_SOURCE_HASH) {
  console.error("The WebAssembly modules are stale: run kernels-wasm/build.sh");
  process.exit(1);
}
if (quantizeSourceHash() !== QUANTIZE_SOURCE_HASH) {
  console.error("The WebAssembly module that quantizes is stale: run kernels-quantize/build.sh");
  process.exit(1);
}
