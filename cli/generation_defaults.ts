/**
 * What a model likes to be asked for. A model folder may hold `generation_config.json` with the
 * arguments its author recommends, under Diffusers' names; Diffusers itself ignores the file.
 */

import { readJsonObject } from "../src/io/checkpoint.ts";
import { configNumber } from "../src/io/config.ts";
import { joinPath, statPath } from "../src/runtime/files.ts";

/** Recommended arguments; what is absent takes the pipeline's own default. */
export interface GenerationDefaults {
  readonly width?: number;
  readonly height?: number;
  readonly numInferenceSteps?: number;
  readonly guidanceScale?: number;
  readonly maxSequenceLength?: number;
}

const KEYS: Readonly<Record<string, keyof GenerationDefaults>> = {
  width: "width",
  height: "height",
  num_inference_steps: "numInferenceSteps",
  guidance_scale: "guidanceScale",
  max_sequence_length: "maxSequenceLength",
};

/** Reads the file; empty when there is none. Throws `invalid_config`. */
export async function readGenerationDefaults(modelPath: string): Promise<GenerationDefaults> {
  const file = joinPath(modelPath, "generation_config.json");
  if (await statPath(file) === undefined) return {};
  const config = await readJsonObject(file);
  const known = Object.entries(KEYS).filter(([key]) => key in config)
    .map(([key, name]) => [name, configNumber(config, key, { integer: key !== "guidance_scale" })]);
  return Object.fromEntries(known);
}
