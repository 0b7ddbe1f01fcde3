/** What the linear layers beside onnxruntime share: the size, our side with int8 activations, both of its builds. */

import { linearWork, openLinear } from "../one_program.ts";
import { openOnnxRuntimeNode } from "../peers/onnxruntime_node.ts";
import { openOnnxRuntimeWeb } from "../peers/onnxruntime_web.ts";
import { compare, type Comparison } from "../suite/measure.ts";
import type { StoredWeight } from "../../src/backends/backend.ts";
import { int8Activations, randomFloats, randomWeight, weightCase } from "../weight_cases.ts";

export const SHAPE = { m: 512, k: 3072, n: 3072 };
const THREADS = 1;

/** A weight case with activations rounded to int8 beside the same layer as an ONNX model. */
export async function besideOnnxRuntime(
  { name, weight, model, rounds, floatToo = false }: {
    name: string;
    /** Of weight_cases.ts. */
    weight: string;
    /** The layer for onnxruntime, over the very same weight. */
    model: (stored: StoredWeight) => Uint8Array;
    rounds: number;
    /** Whether our layer also runs with its activations left in float. */
    floatToo?: boolean;
  },
): Promise<Comparison> {
  const { m, k, n } = SHAPE;
  const form = weightCase(weight, k);
  const x = randomFloats(m * k);
  const stored = randomWeight([n, k], form.format);
  const bytes = model(stored);
  const options = { threads: THREADS, stored, x };
  const ours = { ...form, activations: int8Activations() };
  const inFloat = "halftone, float activations";
  return await compare({
    name,
    threads: THREADS,
    work: linearWork(SHAPE),
    rounds,
    subjects: ["halftone"],
    sameWork: true,
  }, [
    { name: "halftone", open: () => openLinear("halftone", SHAPE, ours, options) },
    ...(floatToo ? [{ name: inFloat, open: () => openLinear(inFloat, SHAPE, form, options) }] : []),
    { name: "onnxruntime-web", open: () => openOnnxRuntimeWeb(bytes, x, [m, k], THREADS) },
    { name: "onnxruntime-node", open: () => openOnnxRuntimeNode(bytes, x, [m, k], THREADS) },
  ]);
}
