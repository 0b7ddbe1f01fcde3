/** The conformance suite on the wasm backend, plain SIMD, with one, two and three threads. */

import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { registerConformance } from "./conformance/register.ts";

for (const threads of [1, 2, 3]) {
  registerConformance({
    name: `wasm, strict, ${threads} thread${threads > 1 ? "s" : ""}`,
    create: () => createWasmBackend({ threads, strict: true }),
  });
}
