/** Checks the options of opening a FluxPipeline. */

import { HalftoneError } from "../errors.ts";
import type { WeightDType } from "../quantization/weights.ts";
import { checkKnownOptions } from "./call_checks.ts";
import type { FluxPipelineOptions } from "./flux_options.ts";

const KNOWN_OPTIONS: readonly (keyof FluxPipelineOptions)[] = [
  "backend",
  "dtype",
  "quantizationConfig",
  "transformer",
  "textEncoder2",
  "threads",
  "strict",
  "residentWeightBytes",
  "variant",
  "keepTextEncoders",
  "keepModulation",
  "vaeTiling",
  "onWarning",
  "onProgress",
  "signal",
];

const WEIGHT_DTYPES: readonly WeightDType[] = ["float32", "bfloat16", "float16"];

/** Throws `invalid_argument` naming the option; backends and quantization check their own. */
export function checkPipelineOptions(options: FluxPipelineOptions): void {
  checkKnownOptions(options, KNOWN_OPTIONS);
  const { dtype } = options;
  if (dtype === undefined || WEIGHT_DTYPES.includes(dtype)) return;
  throw new HalftoneError("invalid_argument", "Cannot open a pipeline with this option", {
    field: "dtype",
    found: dtype,
    expected: WEIGHT_DTYPES.join(", "),
  });
}
