/** Which modules a skip list means; Diffusers and Transformers match its entries differently. */

import { ModulePattern } from "./module_pattern.ts";

/** The library that would load the component, and whose matching therefore counts. */
export type ModelLibrary = "diffusers" | "transformers";

/** Whether a bitsandbytes skip list leaves this module (a dotted name) dense. */
export function skipsModule(
  module: string,
  entries: readonly string[],
  library: ModelLibrary,
): boolean {
  const matches = library === "diffusers" ? matchesInDiffusers : matchesInTransformers;
  return entries.some((entry) => matches(module, entry));
}

/** The last name component, "entry." anywhere, or the whole name (_replace_with_bnb_linear). */
function matchesInDiffusers(module: string, entry: string): boolean {
  return module.split(".").at(-1) === entry || module.includes(`${entry}.`) || module === entry;
}

/** A regular expression from the start to a component's end, or a suffix (should_convert_module). */
function matchesInTransformers(module: string, entry: string): boolean {
  return module.endsWith(entry) || patternOf(entry).test(module);
}

function patternOf(entry: string): ModulePattern {
  return new ModulePattern(entry, "llm_int8_skip_modules", "^(?:", ")(?:(?<=\\.)|(?=\\.|$))");
}
