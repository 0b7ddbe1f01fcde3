/** Keeps a model's outer modules dense, as far as a method's skip lists can name them. */

import { createQuantizer, withSkipModules } from "./auto.ts";
import { moduleOf, type QuantizationConfig, type QuantizerTarget } from "./quantizer.ts";

/**
 * The config with a skip list of the model's outer modules, where it has no list of its own. An entry is
 * taken when it keeps a layer of an outer module dense that was not yet, and no other layer of the model.
 */
export function skippingOuterModules(
  config: QuantizationConfig,
  target: QuantizerTarget,
): QuantizationConfig {
  const outer = target.modules?.outerModules ?? [];
  if (outer.length === 0) return config;
  const layers = [...target.tensors ?? []].filter((name) => name.endsWith(".weight")).map(moduleOf);
  const layersOf = (module: string) =>
    layers.filter((layer) => layer === module || layer.startsWith(`${module}.`));
  const outerLayers = new Set(outer.flatMap(layersOf));
  return withSkipModules(config, (withEntries, { spellings }) => {
    const denseWith = (entries: readonly string[]) => {
      const quantizer = createQuantizer(withEntries(entries), target);
      return layers.filter((layer) => quantizer.skips(layer));
    };
    const others = denseWith([]);
    const isAllowed = (layer: string) => outerLayers.has(layer) || others.includes(layer);
    let entries: readonly string[] = [];
    let dense = others;
    for (const entry of outer.flatMap((module) => spellings(module, layersOf(module)))) {
      const found = denseWith([...entries, entry]);
      if (found.length === dense.length || !found.every(isAllowed)) continue;
      [entries, dense] = [[...entries, entry], found];
    }
    return entries;
  });
}
