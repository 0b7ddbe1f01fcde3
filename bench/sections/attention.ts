/** Attention at FLUX.1's width and 512 x 512 pixels, two threads, beside PyTorch's. */

import { oneProgram, programContender } from "../one_program.ts";
import { openTorch } from "../peers/torch.ts";
import { compare, type Contender } from "../suite/measure.ts";
import type { Section } from "../suite/section.ts";
import { attention as attentionOp } from "../../src/ops/builders.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { randomFloats } from "../weight_cases.ts";

/** 1,024 image tokens and 256 of text. */
const TOKENS = 1280;
const HEADS = 24;
const HEAD_DIM = 128;
const THREADS = 2;
/** Queries and keys rounded to int8, the rest float. */
const IN_INT8 = "halftone, q and k in int8";
const SIZE = TOKENS * HEADS * HEAD_DIM;

/** The section. */
export const attention: Section = {
  about: "attention, 1,280 tokens x 24 heads x 128, two threads",
  perRuntime: true,
  run: async ({ rounds, python }) => {
    const qkv = randomFloats(3 * SIZE);
    const words = ["attention", TOKENS, HEADS, HEAD_DIM, THREADS];
    const comparison = await compare({
      name: "attention",
      threads: THREADS,
      work: { amount: 4 * TOKENS * TOKENS * HEADS * HEAD_DIM, unit: "FLOP" },
      rounds,
      subjects: ["halftone"],
      sameWork: true,
    }, [
      { name: "halftone", open: () => openAttention("halftone", qkv) },
      { name: IN_INT8, open: () => openAttention(IN_INT8, qkv, "int8") },
      { name: "torch", open: () => openTorch("torch", python, words, [qkv]) },
    ]);
    return { comparisons: [comparison] };
  },
};

async function openAttention(
  name: string,
  qkv: Float32Array,
  qkDtype?: "int8",
): Promise<Contender> {
  const shape = [TOKENS, HEADS * HEAD_DIM];
  const opened = await oneProgram(
    (graph) => {
      const [q, k, v] = ["q", "k", "v"].map((name) => graph.input(name, shape));
      const options = { heads: HEADS, scale: 1 / Math.sqrt(HEAD_DIM), qkDtype };
      graph.output("y", attentionOp(q!, k!, v!, options));
    },
    {},
    { threads: THREADS },
  );
  for (const [index, name] of ["q", "k", "v"].entries()) {
    const part = qkv.slice(index * SIZE, (index + 1) * SIZE);
    opened.program.write(name, HostTensor.fromFloat32(part, shape));
  }
  return programContender(name, opened, { threads: THREADS, qkDtype });
}
