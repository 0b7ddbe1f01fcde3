/** Bounds on configs: far above any published model, far below what could not be allocated. */

import { type Config, configStrings } from "../io/config.ts";
import { HalftoneError } from "../errors.ts";

/** Largest values a config may ask for, so that a wild number fails at its key. */
export const CONFIG_LIMITS = {
  layers: 1024,
  heads: 1024,
  features: 1 << 17,
  vocabulary: 1 << 24,
  tokens: 1 << 20,
} as const;

/** Refuses layer types other than `known` in a list of class names, as `unsupported`. */
export function requireLayerTypes(config: Config, key: string, known: string): void {
  const other = configStrings(config, key, { default: [] }).find((type) => type !== known);
  if (other === undefined) return;
  throw new HalftoneError("unsupported", "Cannot build a model of these layers", {
    field: key,
    found: other,
    expected: known,
  });
}
