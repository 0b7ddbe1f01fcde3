/**
 * What a model likes to be asked for. A model folder may hold `generation_config.json` with the
 * arguments its author recommends, under Diffusers' names; Diffusers itself ignores the file.
 */

import { HalftoneError } from "../src/errors.ts";
import { joinPath, readTextFile, statPath } from "../src/runtime/files.ts";

/** Recommended arguments; what is absent takes the pipeline's own default. */
export interface GenerationDefaults {
  readonly width?: number;
  readonly height?: number;
  readonly numInferenceSteps?: number;
  readonly guidanceScale?: number;
  readonly maxSequenceLength?: number;
}

const FILE_NAME = "generation_config.json";
const MAX_BYTES = 64 * 1024;
const KEYS: Readonly<Record<string, keyof GenerationDefaults>> = {
  width: "width",
  height: "height",
  num_inference_steps: "numInferenceSteps",
  guidance_scale: "guidanceScale",
  max_sequence_length: "maxSequenceLength",
};

/** Reads the file; empty when there is none. Throws `invalid_config`. */
export async function readGenerationDefaults(modelPath: string): Promise<GenerationDefaults> {
  const path = joinPath(modelPath, FILE_NAME);
  if (await statPath(path) === undefined) return {};
  const known = Object.entries(parse(path, await readTextFile(path, MAX_BYTES)))
    .filter(([key]) => key in KEYS)
    .map(([key, value]) => [KEYS[key]!, checkedNumber(path, key, value)]);
  return Object.fromEntries(known);
}

function parse(path: string, text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch { /* the error below says it */ }
  throw new HalftoneError("invalid_config", "Cannot parse the recommended arguments", {
    file: path,
    expected: "a JSON object",
  });
}

function checkedNumber(path: string, key: string, value: unknown): number {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw new HalftoneError("invalid_config", "Cannot use the recommended arguments", {
    file: path,
    field: key,
    found: value,
    expected: "a number",
  });
}
