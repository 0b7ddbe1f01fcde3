/** Where each block's shift, scale and gate lie in a row of the modulation matrix. */

import type { Tensor } from "../ops/graph.ts";
import type { FluxTransformerConfig } from "./flux_transformer_config.ts";

/** A norm whose shift, scale and gate come from one linear layer over the conditioning. */
export interface ModulationLayer {
  /** The norm; its linear layer is `name.linear`. */
  readonly name: string;
  /** Vectors of the model's width it gives. */
  readonly chunks: number;
}

/** The columns of the modulation matrix: all layers' vectors side by side in model order. */
export class ModulationLayout {
  readonly layers: readonly ModulationLayer[];
  /** Columns of the whole matrix. */
  readonly columns: number;
  readonly #dim: number;
  readonly #starts = new Map<string, { start: number; chunks: number }>();

  constructor(config: FluxTransformerConfig) {
    this.#dim = config.numAttentionHeads * config.attentionHeadDim;
    this.layers = modulationLayers(config);
    let start = 0;
    for (const { name, chunks } of this.layers) {
      this.#starts.set(name, { start, chunks });
      start += chunks * this.#dim;
    }
    this.columns = start;
  }

  /** A layer's vectors, each [1, dim], as views of a modulation row [1, columns]. */
  chunks(row: Tensor, name: string): Tensor[] {
    const layer = this.#starts.get(name)!;
    return Array.from({ length: layer.chunks }, (_, chunk) => {
      const start = layer.start + chunk * this.#dim;
      return row.slice(1, start, start + this.#dim);
    });
  }
}

/** Double blocks give shift, scale, gate twice per stream; single blocks once; the end scale, shift. */
function modulationLayers(config: FluxTransformerConfig): ModulationLayer[] {
  const layers: ModulationLayer[] = [];
  for (let block = 0; block < config.numLayers; block++) {
    layers.push({ name: `transformer_blocks.${block}.norm1`, chunks: 6 });
    layers.push({ name: `transformer_blocks.${block}.norm1_context`, chunks: 6 });
  }
  for (let block = 0; block < config.numSingleLayers; block++) {
    layers.push({ name: `single_transformer_blocks.${block}.norm`, chunks: 3 });
  }
  layers.push({ name: "norm_out", chunks: 2 });
  return layers;
}
