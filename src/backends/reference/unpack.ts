/** unpack: a weight as float32 values. */

import { dequantize } from "../../quantization/dequantize.ts";
import { isFloat32, type StepContext } from "./step_context.ts";
import { matrixView } from "./strided_view.ts";

/** weight [n, k] in any layout -> output float32 [n, k]. */
export function runUnpack(context: StepContext): void {
  const { stored } = context.weight(0);
  const output = matrixView(context.output);
  const values = stored.kind === "dense" ? stored.tensor.toFloat32() : dequantize(stored.tensor);
  if (!isFloat32(stored)) context.count(values.byteLength);
  for (let row = 0; row < output.rows; row++) {
    const from = row * output.columns;
    const to = output.offset + row * output.rowStride;
    output.data.set(values.subarray(from, from + output.columns), to);
  }
}
