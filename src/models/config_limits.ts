/** Bounds on configs: far above any published model, far below what could not be allocated. */

import { type Config, configNumber, configStrings } from "../io/config.ts";
import { HalftoneError } from "../errors.ts";

/** Largest values a config may ask for, so that a wild number fails at its key. */
export const CONFIG_LIMITS = {
  layers: 1024,
  heads: 1024,
  features: 1 << 17,
  vocabulary: 1 << 24,
  tokens: 1 << 20,
} as const;

/** An integer of the config from `min` to `max`. Throws `invalid_config` naming the key. */
export function configCount(
  config: Config,
  key: string,
  fallback: number,
  max: number,
  min = 1,
): number {
  return configNumber(config, key, { default: fallback, min, max });
}

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
