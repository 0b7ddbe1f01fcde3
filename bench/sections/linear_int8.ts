/** A linear layer over int8 weights and activations rounded to int8 at every run, beside onnxruntime's. */

import { onnxModel } from "../peers/onnx_model.ts";
import type { Section } from "../suite/section.ts";
import type { StoredWeight } from "../../src/backends/backend.ts";
import { besideOnnxRuntime, SHAPE } from "./onnx_linear.ts";

/** The section. */
export const linearInt8: Section = {
  about: "dynamic int8 linear 512 x 3072 x 3072, one thread",
  perRuntime: true,
  run: async ({ rounds }) => {
    const request = { name: "dynamic int8 linear", weight: "int8 row", model: dynamicInt8, rounds };
    return { comparisons: [await besideOnnxRuntime(request)] };
  },
};

/** DynamicQuantizeLinear and MatMulInteger, which onnxruntime fuses, with a scale per column. */
function dynamicInt8(stored: StoredWeight): Uint8Array {
  const { k, n } = SHAPE;
  if (stored.kind !== "quantized" || stored.tensor.scale.kind !== "float") throw new Error("int8");
  const { codes, scale } = stored.tensor;
  return onnxModel([
    { op: "DynamicQuantizeLinear", inputs: ["x"], outputs: ["a", "a_scale", "a_zero"] },
    { op: "MatMulInteger", inputs: ["a", "codes", "a_zero"], outputs: ["sums"] },
    { op: "Cast", inputs: ["sums"], outputs: ["floats"], attributes: { to: 1 } },
    { op: "Mul", inputs: ["a_scale", "scales"], outputs: ["factors"] },
    { op: "Mul", inputs: ["floats", "factors"], outputs: ["y"] },
  ], [
    { name: "codes", dtype: "int8", shape: [k, n], bytes: signedColumns(codes, n, k) },
    { name: "scales", dtype: "float32", shape: [n], bytes: scale.values.bytes },
  ], SHAPE);
}

/** Codes around 128 of [rows, columns] as int8 of [columns, rows]. */
function signedColumns(codes: Uint8Array, rows: number, columns: number): Uint8Array {
  const result = new Uint8Array(codes.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = codes[row * columns + column]! - 128;
    }
  }
  return result;
}
