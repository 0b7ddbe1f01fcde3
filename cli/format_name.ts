/** What a stored weight's format is called on the command line. */

import type { WeightInfo } from "../src/ops/graph.ts";
import { formatText } from "../src/plan/print.ts";
import { createQuantizer } from "../src/quantization/auto.ts";
import { quantizeFormats } from "../src/quantization/formats.ts";

/** Types of the dense weight, which some methods' scales have too. */
const DTYPES = ["float32", "bfloat16", "float16"] as const;

/** `METHOD:FORMAT` when a weight of this shape would be stored so, else a description. */
export function formatName({ shape, format }: WeightInfo): string {
  const text = formatText(format);
  const known = quantizeFormats().find(({ config }) => {
    const quantizer = createQuantizer(config(), { library: "diffusers", keepInFloat32: [] });
    const infos = DTYPES.map((dtype) => quantizer.describe(shape, dtype));
    return infos.some((info) => info !== null && formatText(info.format) === text);
  });
  return known?.fullName ?? text;
}
