/** A linear layer over 4-bit weights in groups of 32, beside onnxruntime's MatMulNBits. */

import { onnxModel } from "../peers/onnx_model.ts";
import { openOnnxRuntimeNode } from "../peers/onnxruntime_node.ts";
import { openOnnxRuntimeWeb } from "../peers/onnxruntime_web.ts";
import { linearWork, openLinear } from "../one_program.ts";
import { compare } from "../suite/measure.ts";
import type { Section } from "../suite/section.ts";
import type { StoredWeight } from "../../src/backends/backend.ts";
import { int8Activations, randomFloats, randomWeight, weightCase } from "../weight_cases.ts";

const SHAPE = { m: 512, k: 3072, n: 3072 };
const THREADS = 1;
const GROUP = 32;
const CODE_BITS = 4;
/** MatMulNBits may round activations to int8. */
const INT8_ACTIVATIONS = 4;

/** The section. */
export const linearInt4: Section = {
  about: "4-bit linear in groups of 32, activations rounded to int8, 512 x 3072 x 3072, one thread",
  perRuntime: true,
  run: async ({ rounds }) => ({ comparisons: [await compared(rounds)] }),
};

async function compared(rounds: number) {
  const { m, k, n } = SHAPE;
  const form = weightCase("int4 group 32", k);
  const x = randomFloats(m * k);
  const stored = randomWeight([n, k], form.format);
  const model = matMulNBits(stored);
  const options = { threads: THREADS, stored, x };
  const ours = { ...form, activations: int8Activations() };
  return await compare({
    name: "4-bit linear",
    threads: THREADS,
    work: linearWork(SHAPE),
    rounds,
    subjects: ["halftone"],
    sameWork: true,
  }, [
    { name: "halftone", open: () => openLinear("halftone", SHAPE, ours, options) },
    {
      name: "halftone, float activations",
      open: () => openLinear("halftone, float activations", SHAPE, form, options),
    },
    { name: "onnxruntime-web", open: () => openOnnxRuntimeWeb(model, x, [m, k], THREADS) },
    { name: "onnxruntime-node", open: () => openOnnxRuntimeNode(model, x, [m, k], THREADS) },
  ]);
}

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
