/** The conformance suite on the wasm backend with relaxed SIMD where there is any, and without workers. */

import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { registerConformance } from "./conformance/register.ts";

registerConformance({
  name: "wasm, 2 threads",
  create: () => createWasmBackend({ threads: 2 }),
});
registerConformance({
  name: "wasm, without workers",
  create: () => createWasmBackend({ inline: true }),
});
