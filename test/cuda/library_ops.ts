/** The ops that NVIDIA's libraries have a part in. */

import type { OpName } from "../../src/ops/op_table.ts";

/** Whether cuBLASLt or cuDNN may compute an op in float32, the precision of the conformance suite. */
export function usesLibraries(op: OpName): boolean {
  return op === "linear" || op === "matmul" || op === "conv2d";
}
