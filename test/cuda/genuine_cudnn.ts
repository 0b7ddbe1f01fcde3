/** NVIDIA's own cuDNN, where it is installed. */

import { CudnnCalls } from "../../src/backends/cuda/cudnn_calls.ts";
import { cudnnLibraries } from "../../src/backends/cuda/library_paths.ts";
import { HalftoneError } from "../../src/errors.ts";

/** A library that opens, or why there is none. */
export async function openGenuineCudnn(): Promise<CudnnCalls | string> {
  let reason = "";
  for (const library of await cudnnLibraries()) {
    try {
      return new CudnnCalls(library);
    } catch (error) {
      if (!(error instanceof HalftoneError)) throw error;
      reason = error.message;
    }
  }
  return `no cuDNN is installed: ${reason}`;
}
