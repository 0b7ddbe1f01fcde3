/** Every conformance case between guard zones of NaN, in memory that starts as NaN. */

import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { registerGuardZones } from "./conformance/register.ts";

registerGuardZones({
  name: "reference",
  create: () => Promise.resolve(createReferenceBackend()),
});
registerGuardZones({
  name: "wasm, strict, 2 threads",
  create: () => createWasmBackend({ threads: 2, strict: true }),
});
