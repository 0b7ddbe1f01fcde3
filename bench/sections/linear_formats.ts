/** What weight-only formats cost a linear layer, against float32 weights. */

import { linearWork, openLinear } from "../one_program.ts";
import { compare } from "../suite/measure.ts";
import type { Section } from "../suite/section.ts";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { weightCases } from "../weight_cases.ts";

/** Few columns and many turns: short runs are disturbed least, and the rows alone decide what unpacking costs. */
const SHAPE = { m: 768, k: 3072, n: 384 };
const TURNS_PER_ROUND = 8;
const THREADS = 1;

/** The section. */
export const linearFormats: Section = {
  about: "linear 768 x 3072 x 384 by weight format, one thread",
  perRuntime: true,
  run: async ({ rounds }) => {
    // One memory for all: the ninth and later ones of a process are a third slower in Bun.
    const backend = await createWasmBackend({ threads: THREADS });
    const cases = weightCases(SHAPE.k);
    const comparison = await compare(
      {
        name: "weight formats",
        threads: THREADS,
        work: linearWork(SHAPE),
        rounds: rounds * TURNS_PER_ROUND,
        subjects: cases.map(({ name }) => name).filter((name) => name !== "float32"),
        sameWork: false,
      },
      cases.map((form) => ({
        name: form.name,
        open: () => openLinear(form.name, SHAPE, form, { threads: THREADS, backend }),
      })),
    );
    await backend.close();
    return { comparisons: [comparison] };
  },
};
