/** How large the WebAssembly modules are. */

import type { Section } from "../suite/section.ts";
import { MODULE_BASE64 as plain } from "../../src/backends/wasm/generated/kernels_plain.ts";
import { MODULE_BASE64 as relaxed } from "../../src/backends/wasm/generated/kernels_relaxed.ts";

const bytes = (base64: string) => atob(base64).length;

/** The section. */
export const modules: Section = {
  about: "bytes of the two builds of the kernels",
  perRuntime: false,
  run: () => {
    const builds = { plain: bytes(plain), relaxed: bytes(relaxed) };
    const value = builds.plain + builds.relaxed;
    return Promise.resolve({
      figures: [{ name: "both modules", value, unit: "bytes", detail: builds }],
    });
  },
};
