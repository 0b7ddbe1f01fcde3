/** The promises of a backend beside its numbers, on the reference backend. */

import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import { registerGuards } from "./conformance/guards.ts";

registerGuards({
  name: "reference",
  create: () => Promise.resolve(createReferenceBackend()),
});
registerGuards({
  name: "reference without fused ops",
  create: () => Promise.resolve(createReferenceBackend({ fused: false })),
});
