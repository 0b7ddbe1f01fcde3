/** The table of all formats: what each can do, and what a weight takes in it. */

import { activationsText } from "../ops/activation_mode.ts";
import type { Shape } from "../tensor/shape.ts";
import { createQuantizer } from "./auto.ts";
import { quantizeFormats } from "./formats.ts";
import { bitsPerWeight } from "./layout_bytes.ts";
import type { FormatCapabilities } from "./quantizer.ts";

/** A typical linear layer of FLUX.1, whose bits per weight stand for all. */
export const TYPICAL_LAYER: Shape = [3072, 3072];

/** A row of the table. */
export interface FormatRow extends FormatCapabilities {
  /** `METHOD:FORMAT`, as `--quantize` takes it. */
  readonly name: string;
  readonly method: string;
  readonly description: string;
  /** Of the typical layer in bfloat16, with scales, offsets and tables; null where it stays dense. */
  readonly bitsPerWeight: number | null;
  /** How a linear layer treats its activations: "float", "llm_int8", "int8 per row" ... */
  readonly activations: string;
}

/** One row per format, in the order of the registry. */
export function formatTable(): FormatRow[] {
  return quantizeFormats().map(({ fullName, description, config, capabilities }) => {
    const quantizer = createQuantizer(config(), { library: "diffusers", keepInFloat32: [] });
    const info = quantizer.describe(TYPICAL_LAYER, "bfloat16");
    return {
      name: fullName,
      method: fullName.slice(0, fullName.indexOf(":")),
      description,
      bitsPerWeight: info && bitsPerWeight(TYPICAL_LAYER, info.format),
      activations: activationsText(info?.activations ?? { kind: "float" }),
      onTheFly: true,
      load: true,
      save: true,
      ...capabilities,
    };
  });
}
