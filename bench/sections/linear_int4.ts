/** A linear layer over 4-bit weights in groups of 32, beside onnxruntime's MatMulNBits. */

import { onnxModel } from "../peers/onnx_model.ts";
import type { Section } from "../suite/section.ts";
import type { StoredWeight } from "../../src/backends/backend.ts";
import { besideOnnxRuntime, SHAPE } from "./onnx_linear.ts";

const GROUP = 32;
const CODE_BITS = 4;
/** MatMulNBits may round activations to int8. */
const INT8_ACTIVATIONS = 4;

/** The section. */
export const linearInt4: Section = {
  about: "4-bit linear in groups of 32, activations rounded to int8, 512 x 3072 x 3072, one thread",
  perRuntime: true,
  run: async ({ rounds }) => {
    const request = {
      name: "4-bit linear",
      weight: "int4 group 32",
      model: matMulNBits,
      rounds,
      floatToo: true,
    };
    return { comparisons: [await besideOnnxRuntime(request)] };
  },
};

/** Our codes and scales lie as MatMulNBits wants them: two codes a byte, the lower one first. */
function matMulNBits(stored: StoredWeight): Uint8Array {
  const { k, n } = SHAPE;
  if (stored.kind !== "quantized" || stored.tensor.scale.kind !== "float") throw new Error("4-bit");
  const { codes, scale } = stored.tensor;
  const shape = [n, k / GROUP, GROUP * CODE_BITS / 8];
  const scales = scale.values.bytes;
  return onnxModel([{
    op: "MatMulNBits",
    domain: "com.microsoft",
    inputs: ["x", "codes", "scales"],
    outputs: ["y"],
    attributes: {
      K: k,
      N: n,
      bits: CODE_BITS,
      block_size: GROUP,
      accuracy_level: INT8_ACTIVATIONS,
    },
  }], [
    { name: "codes", dtype: "uint8", shape, bytes: codes },
    { name: "scales", dtype: "float32", shape: [n * k / GROUP], bytes: scales },
  ], SHAPE);
}
