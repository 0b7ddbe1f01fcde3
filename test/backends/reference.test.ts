/** The conformance suite on the reference backend, with its fused ops. */

import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import { registerConformance } from "./conformance/register.ts";

registerConformance({
  name: "reference",
  create: () => Promise.resolve(createReferenceBackend()),
});
