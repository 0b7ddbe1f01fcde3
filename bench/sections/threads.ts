/** What a second thread brings. */

import { linearWork, openLinear } from "../one_program.ts";
import { compare } from "../suite/measure.ts";
import type { Section } from "../suite/section.ts";
import { int8Activations, weightCase } from "../weight_cases.ts";

const SHAPE = { m: 768, k: 3072, n: 3072 };

/** The section. */
export const threads: Section = {
  about: "two threads against one: float32 and int8 linear 768 x 3072 x 3072",
  perRuntime: true,
  run: async ({ rounds }) => ({
    comparisons: [
      await compared("float32", rounds),
      await compared("int8 row", rounds),
    ],
  }),
};

async function compared(form: "float32" | "int8 row", rounds: number) {
  const base = weightCase(form, SHAPE.k);
  const layer = form === "float32" ? base : { ...base, activations: int8Activations() };
  const contender = (count: number, name: string) => ({
    name,
    open: () => openLinear(name, SHAPE, layer, { threads: count }),
  });
  return await compare({
    name: `threads, ${form}`,
    threads: 2,
    work: linearWork(SHAPE),
    rounds,
    subjects: ["two threads"],
    sameWork: false,
  }, [contender(2, "two threads"), contender(1, "one thread")]);
}
