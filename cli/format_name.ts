/** What a stored weight's format is called on the command line. */

import type { WeightInfo } from "../src/ops/graph.ts";
import { formatText } from "../src/plan/print.ts";
import { createQuantizer } from "../src/quantization/auto.ts";
import { quantizeFormats } from "../src/quantization/formats.ts";
import type { QuantizationConfig } from "../src/quantization/quantizer.ts";

/** Types of the dense weight, which some methods' scales have too. */
const DTYPES = ["float32", "bfloat16", "float16"] as const;

/**
 * `METHOD:FORMAT` when the method of this config would store a weight of this shape so, else a description.
 * Methods share layouts (float16 scales make torchao's int4dq GGUF's Q4_0), so the method must be known.
 */
export function formatName(
  { shape, format }: WeightInfo,
  { quantMethod }: QuantizationConfig,
): string {
  const text = formatText(format);
  const known = quantizeFormats().find((candidate) => {
    const config = candidate.config();
    if (!quantMethod.split("+").includes(config.quantMethod)) return false; // "bitsandbytes+layerwise"
    const quantizer = createQuantizer(config, { library: "diffusers", keepInFloat32: [] });
    const infos = DTYPES.map((dtype) => quantizer.describe(shape, dtype));
    return infos.some((info) => info !== null && formatText(info.format) === text);
  });
  return known?.fullName ?? text;
}
