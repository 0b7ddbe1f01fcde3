/** The conformance suite on the reference backend without fused ops: the decompositions. */

import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import { registerConformance } from "./conformance/register.ts";

registerConformance({
  name: "reference without fused ops",
  create: () => Promise.resolve(createReferenceBackend({ fused: false })),
  skip: ({ budget }) =>
    budget === "linear/llm_int8" || budget === "linear/quantized activations" ||
      budget.startsWith("attention/int8")
      ? "rounding of activations has no decomposition into required ops"
      : null,
});
