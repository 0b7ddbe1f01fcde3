/** The denoising loop: velocities from the transformer, steps from the scheduler. */

import type { Program } from "../backends/backend.ts";
import { HalftoneError } from "../errors.ts";
import { modelTime, timestepEmbedding } from "../models/timestep_embedding.ts";
import type { FlowMatchEulerDiscreteScheduler } from "../schedulers/flow_match_euler.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import type { StepChanges } from "./flux_options.ts";
import type { FluxRequest } from "./flux_request.ts";
import { concatenated } from "./latents.ts";
import type { StageClock } from "./stage_clock.ts";
import type { PromptConditioning } from "./text_encoding.ts";

/** One branch of guidance: its program, and per picture its text and its modulation for all steps. */
export interface GuidanceBranch {
  readonly program: Program;
  /** [text tokens, joint features] per picture */
  readonly text: readonly HostTensor[];
  /** [steps, modulation columns] per picture */
  readonly modulation: readonly HostTensor[];
}

/** What the loop needs beside the request. */
export interface DenoisingRun {
  readonly request: FluxRequest;
  readonly scheduler: FlowMatchEulerDiscreteScheduler;
  readonly positive: GuidanceBranch;
  readonly negative: GuidanceBranch | null;
  readonly clock: StageClock;
}

/** Runs all steps from packed latents [images, tokens, features]; returns the last ones. */
export async function denoise(run: DenoisingRun, start: Float32Array): Promise<Float32Array> {
  const { request, scheduler, clock } = run;
  const evaluator = new VelocityEvaluator(request);
  let positive = run.positive;
  let latents = start;
  const timesteps = scheduler.timesteps.slice();
  for (const [step, timestep] of timesteps.entries()) {
    const began = performance.now();
    const velocity = await guidedVelocity(evaluator, run, positive, latents, step);
    latents = scheduler.step(velocity, timestep, latents, { generator: request.generators[0] });
    clock.addStep((performance.now() - began) / 1000);
    const changes = await callBack(request, { step, timestep, latents, positive });
    if (changes?.latents) latents = changedLatents(changes.latents, shapeOf(request, latents));
    if (changes?.promptEmbeds) positive = changedText(changes.promptEmbeds, positive);
    if (changes?.interrupt) break;
  }
  return latents;
}

/** The velocity of every picture; with true guidance v = negative + scale (positive - negative). */
async function guidedVelocity(
  evaluator: VelocityEvaluator,
  { request, negative }: DenoisingRun,
  positive: GuidanceBranch,
  latents: Float32Array,
  step: number,
): Promise<Float32Array> {
  const velocity = await evaluator.evaluate(positive, latents, step);
  if (!negative) return velocity;
  const away = await evaluator.evaluate(negative, latents, step);
  const scale = Math.fround(request.trueCfgScale);
  return velocity.map((v, i) => away[i] + Math.fround(scale * Math.fround(v - away[i])));
}

/** Runs denoise programs picture by picture. */
class VelocityEvaluator {
  readonly #request: FluxRequest;
  /** The text each program holds: inputs keep their values, so the same text is not written again. */
  readonly #texts = new Map<Program, HostTensor>();

  constructor(request: FluxRequest) {
    this.#request = request;
  }

  async evaluate(
    branch: GuidanceBranch,
    latents: Float32Array,
    step: number,
  ): Promise<Float32Array> {
    const { images, signal } = this.#request;
    const length = latents.length / images;
    const velocities: Float32Array[] = [];
    const { program } = branch;
    for (let image = 0; image < images; image++) {
      this.#writeText(program, branch.text[image]);
      program.write("modulation", rowOf(branch.modulation[image], step));
      const own = latents.subarray(image * length, (image + 1) * length);
      program.write("latents", this.#asTokens(own));
      await program.run({ signal });
      velocities.push(program.read("velocity").toFloat32());
    }
    return concatenated(velocities);
  }

  #writeText(program: Program, text: HostTensor): void {
    if (text === this.#texts.get(program)) return;
    program.write("text", text);
    this.#texts.set(program, text);
  }

  #asTokens(latents: Float32Array): HostTensor {
    const { tokens } = this.#request.sizes;
    return HostTensor.fromFloat32(latents, [tokens, latents.length / tokens]);
  }
}

function rowOf(matrix: HostTensor, row: number): HostTensor {
  const columns = matrix.shape[1];
  const values = matrix.toFloat32().subarray(row * columns, (row + 1) * columns);
  return HostTensor.fromFloat32(values, [1, columns]);
}

function shapeOf({ images, sizes }: FluxRequest, latents: Float32Array): Shape {
  return [images, sizes.tokens, latents.length / images / sizes.tokens];
}

async function callBack(
  request: FluxRequest,
  state: { step: number; timestep: number; latents: Float32Array; positive: GuidanceBranch },
): Promise<StepChanges | void> {
  const { onStep, signal, images } = request;
  if (!onStep) return;
  const { step, timestep, latents, positive } = state;
  const changes = await onStep({
    step,
    steps: request.numInferenceSteps,
    timestep,
    latents: HostTensor.fromFloat32(latents.slice(), shapeOf(request, latents)),
    promptEmbeds: HostTensor.fromFloat32(
      concatenated(positive.text.map((text) => text.toFloat32())),
      [images, ...positive.text[0].shape],
    ),
  });
  throwIfAborted(signal);
  return changes;
}

function changedLatents(latents: HostTensor, expected: Shape): Float32Array {
  if (!sameShape(latents.shape, expected)) throw wrongShape("latents", latents.shape, expected);
  return latents.toFloat32().slice();
}

function changedText(embeds: HostTensor, branch: GuidanceBranch): GuidanceBranch {
  const one = branch.text[0].shape;
  const expected = [branch.text.length, ...one];
  if (!sameShape(embeds.shape, expected)) throw wrongShape("promptEmbeds", embeds.shape, expected);
  const values = embeds.toFloat32();
  const length = values.length / branch.text.length;
  const text = branch.text.map((_, image) =>
    HostTensor.fromFloat32(values.slice(image * length, (image + 1) * length), one)
  );
  return { ...branch, text };
}

function wrongShape(field: string, found: Shape, expected: Shape): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot go on with what the step callback gave", {
    field,
    found: `[${found}]`,
    expected: `[${expected}]`,
  });
}

/** Ends the run when the caller asked for it. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new HalftoneError("aborted", "Cannot finish: aborted by the caller", {}, signal.reason);
}

/** Inputs of the modulation plan for all steps. */
export function modulationInputs(
  timesteps: Float32Array,
  guidanceScale: number | null,
): Record<string, HostTensor> {
  const timestep = timestepEmbedding(timesteps.map(modelTime));
  if (guidanceScale === null) return { timestep };
  const guidance = Math.fround(Math.fround(guidanceScale) * 1000);
  return { timestep, guidance: timestepEmbedding([guidance]) };
}

/** Modulation for all steps of each distinct pooled vector. */
export async function modulations(
  program: Program,
  inputs: Readonly<Record<string, HostTensor>>,
  conditionings: readonly PromptConditioning[],
  signal: AbortSignal | undefined,
): Promise<Map<HostTensor, HostTensor>> {
  for (const [name, tensor] of Object.entries(inputs)) program.write(name, tensor);
  const found = new Map<HostTensor, HostTensor>();
  for (const { pooled } of conditionings) {
    if (found.has(pooled)) continue;
    program.write("pooled", pooled);
    await program.run({ signal });
    found.set(pooled, program.read("modulation"));
  }
  return found;
}
