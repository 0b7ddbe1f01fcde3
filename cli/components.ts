/** Checks of what `--quantize` names. */

import { HalftoneError } from "../src/errors.ts";
import type { PipelineQuantizationConfig } from "../src/quantization/pipeline_config.ts";

/**
 * Throws `invalid_argument` when the config names a component that is not there: a typing mistake
 * would else leave the component as it is without a word.
 */
export function requireComponents(
  config: PipelineQuantizationConfig | undefined,
  names: readonly string[],
): void {
  const [found] = config?.unknownComponents(names) ?? [];
  if (found === undefined) return;
  throw new HalftoneError("invalid_argument", "Cannot quantize a component that is not there", {
    field: "--quantize",
    found,
    expected: names.join(", "),
  });
}
