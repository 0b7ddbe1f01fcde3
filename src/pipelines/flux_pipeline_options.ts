/** Checks the options of opening a FluxPipeline. */

import { checkKnownOptions } from "../errors.ts";
import { checkActivations } from "../quantization/activation_choice.ts";
import { checkWeightDType } from "../quantization/weights.ts";
import { checkAttention } from "./attention_choice.ts";
import type { FluxPipelineOptions } from "./flux_options.ts";

const KNOWN_OPTIONS: readonly (keyof FluxPipelineOptions)[] = [
  "backend",
  "dtype",
  "quantizationConfig",
  "activations",
  "attention",
  "transformer",
  "textEncoder2",
  "threads",
  "strict",
  "residentWeightBytes",
  "matmulPrecision",
  "variant",
  "keepTextEncoders",
  "keepModulation",
  "vaeTiling",
  "onWarning",
  "onProgress",
  "signal",
];

/** Throws `invalid_argument` naming the option; backends and quantization check their own. */
export function checkPipelineOptions(options: FluxPipelineOptions): void {
  checkKnownOptions(options, KNOWN_OPTIONS);
  checkWeightDType(options.dtype);
  checkActivations(options.activations);
  checkAttention(options.attention);
}
