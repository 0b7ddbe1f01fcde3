/** From options of the command line to an open pipeline; shared by `generate`, `plan` and `serve`. */

import { readModelIndex } from "../src/io/model_folder.ts";
import { FluxPipeline } from "../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../src/pipelines/flux_options.ts";
import { parseQuantizeFlags } from "../src/quantization/formats.ts";
import type { PlainPipelineOptions } from "../server/worker_protocol.ts";
import { requireComponents } from "./components.ts";
import { type GenerationDefaults, readGenerationDefaults } from "./generation_defaults.ts";
import { modelPath } from "./model_path.ts";
import type { ModelOptions } from "./options.ts";
import type { Progress } from "./progress.ts";

/** A pipeline, where it came from, and what its model likes to be asked for. */
export interface OpenedPipeline {
  readonly path: string;
  readonly pipeline: FluxPipeline;
  readonly defaults: GenerationDefaults;
}

/** Opens the pipeline that the options name; the caller disposes of it. */
export async function openPipeline(
  options: ModelOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<OpenedPipeline> {
  const path = await modelPath(options.model);
  const defaults = await readGenerationDefaults(path);
  const pipeline = await FluxPipeline.fromPretrained(path, {
    ...await pipelineOptions(options, path),
    signal,
    onProgress: ({ stage, done, total }) => progress.show(`load ${stage}`, done, total, "weights"),
    onWarning: (message) => progress.say(`warning: ${message}`),
  });
  return { path, pipeline, defaults };
}

/**
 * The pipeline's options that the command line's mean for a model's folder. Throws
 * `invalid_argument` for a component that is not there.
 */
export async function pipelineOptions(
  options: ModelOptions,
  path: string,
): Promise<PlainPipelineOptions & Pick<FluxPipelineOptions, "quantizationConfig">> {
  const quantizationConfig = parseQuantizeFlags(options.quantize, options);
  if (quantizationConfig !== undefined) {
    requireComponents(quantizationConfig, [...(await readModelIndex(path)).components.keys()]);
  }
  return {
    backend: options.backend,
    dtype: options.dtype,
    threads: options.threads,
    strict: options.strict,
    matmulPrecision: options.matmulPrecision,
    quantizationConfig,
    activations: options.activations,
    attention: options.attention,
    transformer: options.transformer,
    textEncoder2: options.textEncoder2,
  };
}
