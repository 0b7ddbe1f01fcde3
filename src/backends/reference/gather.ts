/** gather: rows of a table by their ids. */

import { HalftoneError } from "../../errors.ts";
import { dequantizeRows } from "../../quantization/dequantize.ts";
import { itemSize } from "../../tensor/dtype.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import type { StoredWeight } from "../backend.ts";
import { isFloat32, type StepContext } from "./step_context.ts";
import { matrixView } from "./strided_view.ts";

/** ids int32 [n], table (weight) [entries, columns] -> output [n, columns]. */
export function runGather(context: StepContext): void {
  const ids = context.input(0);
  const { name, stored } = context.weight(1);
  const output = matrixView(context.output);
  if (!isFloat32(stored)) context.count(output.columns * 4);
  const entries = stored.tensor.shape[0];
  for (let index = 0; index < output.rows; index++) {
    const id = ids.data[ids.offset + index * (ids.strides.at(-1) ?? 1)];
    if (!(id >= 0 && id < entries)) throw outOfRange(name, id, entries);
    output.data.set(tableRow(stored, id), output.offset + index * output.rowStride);
  }
}

function tableRow(stored: StoredWeight, row: number): Float32Array {
  if (stored.kind === "quantized") return dequantizeRows(stored.tensor, row, row + 1);
  const { dtype, shape, bytes } = stored.tensor;
  const rowBytes = shape[1] * itemSize(dtype);
  return toFloat32(dtype, bytes.subarray(row * rowBytes, (row + 1) * rowBytes));
}

function outOfRange(tensor: string, id: number, entries: number): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot look up an id", {
    tensor,
    found: id,
    expected: `0 to ${entries - 1}`,
  });
}
