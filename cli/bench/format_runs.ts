/** One picture and one velocity per format, with what they took and how far they are from float32. */

import type { ActivationChoice } from "../../src/quantization/activation_choice.ts";
import { HalftoneError } from "../../src/errors.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions, MemoryReport } from "../../src/pipelines/flux_options.ts";
import type { PipelineImage } from "../../src/pipelines/image.ts";
import { formatTable } from "../../src/quantization/format_table.ts";
import { parseQuantizeFlags } from "../../src/quantization/formats.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";

/** What all formats have in common. */
export interface FormatBenchRequest {
  /** A model folder. */
  readonly model: string;
  readonly prompt: string;
  readonly seed: number;
  /** The model's own values where absent. */
  readonly width?: number;
  readonly height?: number;
  readonly numInferenceSteps?: number;
  readonly maxSequenceLength?: number;
  readonly guidanceScale?: number;
  readonly backend: FluxPipelineOptions["backend"];
  readonly threads?: number;
  /** For the formats, not for dense weights. */
  readonly activations?: ActivationChoice;
  readonly signal?: AbortSignal;
}

/** What a format gave. */
export interface FormatRun {
  /** `METHOD:FORMAT`, or the type of dense weights. */
  readonly name: string;
  readonly bitsPerWeight: number | null;
  readonly memory: MemoryReport;
  /** Seconds of the denoising steps; the run before them has warmed everything up. */
  readonly stepSeconds: readonly number[];
  readonly image: PipelineImage;
  /** The velocity of a single step from fixed noise, [1, tokens, features]. */
  readonly velocity: Float32Array;
  /** The backend that ran it. */
  readonly backend: string;
}

const DENSE = { float32: 32, bfloat16: 16 } as const;

/**
 * The runs of the table: float32, with which the others are compared, bfloat16, and the formats chosen
 * (all that quantize on the fly when none is) but some. Throws `invalid_argument` for a name that is unknown.
 */
export function benchedFormats(chosen: readonly string[], left: readonly string[] = []): string[] {
  const known = formatTable().filter(({ onTheFly }) => onTheFly).map(({ name }) => name);
  for (const [field, names] of [["--formats", chosen], ["--except", left]] as const) {
    const unknown = names.find((name) => !known.includes(name));
    if (unknown !== undefined) throw unknownFormat(field, unknown, known);
  }
  const formats = chosen.length > 0 ? chosen : known;
  return [...Object.keys(DENSE), ...formats.filter((name) => !left.includes(name))];
}

function unknownFormat(field: string, found: string, known: readonly string[]): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot compare a format", {
    field,
    found,
    expected: `some of ${known.join(",")}`,
  });
}

/** The noise that every format starts from, [1, tokens, features]; its shape takes a run to find. */
export async function noiseOf(request: FormatBenchRequest): Promise<HostTensor> {
  const { model, backend, threads, signal, seed } = request;
  await using pipeline = await FluxPipeline.fromPretrained(model, { backend, threads, signal });
  const { latents } = await pipeline.generate({
    ...generateOptions(request),
    numInferenceSteps: 1,
    outputType: "latent",
    seed,
  });
  return new TorchGenerator(seed).randn([...latents.shape]);
}

/** Runs a format in a pipeline and on a backend of its own, so that peaks do not add up. */
export async function runFormat(
  name: string,
  request: FormatBenchRequest,
  noise: HostTensor,
): Promise<FormatRun> {
  const { model, backend, threads, activations, signal } = request;
  const pipeline = await FluxPipeline.fromPretrained(model, {
    backend,
    threads,
    signal,
    ...weightOptions(name, activations),
  });
  await using _disposed = pipeline;
  const velocity = await velocityOf(pipeline, request, noise);
  const { images, memory, timings } = await pipeline.generate({
    ...generateOptions(request),
    seed: request.seed,
  });
  return {
    name: activations && !isDense(name) ? `${name}, ${activations} activations` : name,
    bitsPerWeight: bitsOf(name),
    memory,
    stepSeconds: timings.steps,
    image: images[0]!,
    velocity,
    backend: pipeline.backend.name,
  };
}

function weightOptions(name: string, activations?: ActivationChoice): FluxPipelineOptions {
  if (isDense(name)) return { dtype: name };
  return { quantizationConfig: parseQuantizeFlags([name]), activations };
}

function isDense(name: string): name is keyof typeof DENSE {
  return name in DENSE;
}

/** Bits per weight of a format or a dense type; null when the format is not of one layer. */
export function bitsOf(name: string): number | null {
  if (isDense(name)) return DENSE[name];
  return formatTable().find((row) => row.name === name)?.bitsPerWeight ?? null;
}

function generateOptions(request: FormatBenchRequest) {
  const {
    model: _model,
    backend: _backend,
    threads: _threads,
    activations: _activations,
    seed: _seed,
    ...rest
  } = request;
  return rest;
}

/** A single step goes from noise level 1 to 0, so the velocity is the noise less what comes out. */
async function velocityOf(
  pipeline: FluxPipeline,
  request: FormatBenchRequest,
  noise: HostTensor,
): Promise<Float32Array> {
  const options = {
    ...generateOptions(request),
    numInferenceSteps: 1,
    outputType: "latent",
  } as const;
  const { latents } = await pipeline.generate({ ...options, latents: noise });
  const after = latents.toFloat32();
  return noise.toFloat32().map((value, index) => value - after[index]!);
}
