/** Checks the options of a FluxPipeline call and brings them into one form. */

import { HalftoneError } from "../errors.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { isFloat } from "../tensor/dtype.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { TorchGenerator } from "../tensor/random.ts";
import type { EncodePromptOptions, FluxGenerateOptions, Seed } from "./flux_options.ts";
import { type LatentSizes, latentSizes } from "./latents.ts";

/** What the checks must know of the models. */
export interface FluxTraits {
  /** Features of a latent token. */
  readonly inChannels: number;
  readonly jointAttentionDim: number;
  readonly pooledProjectionDim: number;
  /** Pixels per latent pixel, each way. */
  readonly scaleFactor: number;
  /** Pixels of a side when none is given: what the autoencoder was made for (1024 for FLUX.1). */
  readonly defaultSide: number;
  readonly hasTextEncoder: boolean;
  readonly hasTextEncoder2: boolean;
}

/** Where conditioning comes from: a prompt for each picture of the batch, or embeddings. */
export type PromptSource =
  | { readonly kind: "text"; readonly clip: readonly string[]; readonly t5: readonly string[] }
  | { readonly kind: "embeds"; readonly text: HostTensor; readonly pooled: HostTensor };

/** A call that can be run. */
export interface FluxRequest {
  readonly positive: PromptSource;
  /** Present when true guidance is on. */
  readonly negative: PromptSource | null;
  readonly trueCfgScale: number;
  readonly guidanceScale: number;
  /** Prompts in the batch. */
  readonly prompts: number;
  readonly imagesPerPrompt: number;
  /** Pictures: prompts times imagesPerPrompt. */
  readonly images: number;
  /** Pixels asked for; the picture may come out smaller. */
  readonly width: number;
  readonly height: number;
  readonly sizes: LatentSizes;
  /** Tokens of encoded prompts. */
  readonly maxSequenceLength: number;
  readonly textTokens: number;
  /** Text tokens of the negative branch; as many as `textTokens` unless embeddings say otherwise. */
  readonly negativeTextTokens: number;
  readonly numInferenceSteps: number;
  readonly sigmas: readonly number[];
  readonly generators: readonly TorchGenerator[];
  readonly seed: Seed | readonly Seed[] | null;
  readonly latents: HostTensor | null;
  readonly outputType: "png" | "pixels" | "latent";
  readonly onStep: FluxGenerateOptions["onStep"];
  readonly signal: AbortSignal | undefined;
}

/** Bounds of a call. */
export const CALL_LIMITS = {
  /** Pixels of a side. */
  side: 16384,
  /** Pixels of a picture. */
  area: 4096 * 4096,
  steps: 1000,
  /** Pictures of one call. */
  images: 64,
  /** UTF-16 units of a prompt; both tokenizers read far less. */
  promptLength: 100_000,
  /** T5 tokens, as in Diffusers. */
  sequenceLength: 512,
} as const;

const KNOWN_OPTIONS: readonly (keyof FluxGenerateOptions)[] = [
  "prompt",
  "prompt2",
  "negativePrompt",
  "negativePrompt2",
  "promptEmbeds",
  "pooledPromptEmbeds",
  "negativePromptEmbeds",
  "negativePooledPromptEmbeds",
  "width",
  "height",
  "numInferenceSteps",
  "sigmas",
  "guidanceScale",
  "trueCfgScale",
  "numImagesPerPrompt",
  "seed",
  "generator",
  "latents",
  "maxSequenceLength",
  "outputType",
  "onStep",
  "signal",
];

/** Checks a call; throws `invalid_argument` naming the option. */
export function parseFluxRequest(options: FluxGenerateOptions, traits: FluxTraits): FluxRequest {
  checkKnown(options);
  const maxSequenceLength = integer(options, "maxSequenceLength", 512, CALL_LIMITS.sequenceLength);
  const positive = positiveSource(options, traits);
  const prompts = promptsOf(positive);
  const imagesPerPrompt = integer(options, "numImagesPerPrompt", 1, CALL_LIMITS.images);
  const images = prompts * imagesPerPrompt;
  if (images > CALL_LIMITS.images) {
    throw invalid("numImagesPerPrompt", images, `at most ${CALL_LIMITS.images} pictures in all`);
  }
  const trueCfgScale = number(options, "trueCfgScale", 1);
  const negative = negativeSource(options, traits, prompts);
  const { width, height, sizes } = requestedSizes(options, traits);
  const textTokens = (source: PromptSource): number =>
    source.kind === "embeds" ? source.text.shape[1] : maxSequenceLength;
  const sigmas = requestedSigmas(options);
  return {
    positive,
    negative: trueCfgScale > 1 ? negative : null,
    trueCfgScale,
    guidanceScale: number(options, "guidanceScale", 3.5),
    prompts,
    imagesPerPrompt,
    images,
    width,
    height,
    sizes,
    maxSequenceLength,
    textTokens: textTokens(positive),
    negativeTextTokens: textTokens(negative ?? positive),
    numInferenceSteps: sigmas.length,
    sigmas,
    ...randomness(options, images),
    latents: givenLatents(options, [images, sizes.tokens, traits.inChannels]),
    outputType: outputType(options),
    onStep: callback(options),
    signal: options.signal,
  };
}

function checkKnown(options: FluxGenerateOptions): void {
  const unknown = Object.keys(options).find((key) =>
    !(KNOWN_OPTIONS as readonly string[]).includes(key)
  );
  if (unknown !== undefined) throw invalid(unknown, unknown, KNOWN_OPTIONS.join(", "));
}

/** Checks prompts to be encoded; throws `invalid_argument` naming the option. */
export function parseEncodeRequest(
  options: EncodePromptOptions,
  traits: FluxTraits,
): { source: PromptSource; maxSequenceLength: number } {
  const known = ["prompt", "prompt2", "maxSequenceLength", "signal"];
  const unknown = Object.keys(options).find((key) => !known.includes(key));
  if (unknown !== undefined) throw invalid(unknown, unknown, known.join(", "));
  const source = positiveSource(options, traits);
  const { sequenceLength } = CALL_LIMITS;
  return { source, maxSequenceLength: integer(options, "maxSequenceLength", 512, sequenceLength) };
}

function positiveSource(options: FluxGenerateOptions, traits: FluxTraits): PromptSource {
  const { promptEmbeds, pooledPromptEmbeds, prompt, prompt2 } = options;
  if (promptEmbeds) {
    exclude("prompt", prompt, "promptEmbeds");
    exclude("prompt2", prompt2, "promptEmbeds");
    return embeds("promptEmbeds", promptEmbeds, "pooledPromptEmbeds", pooledPromptEmbeds, traits);
  }
  if (pooledPromptEmbeds) throw invalid("promptEmbeds", undefined, "given with pooledPromptEmbeds");
  if (prompt === undefined) throw invalid("prompt", undefined, "a prompt, or promptEmbeds");
  requireEncoders("prompt", traits);
  const clip = promptList("prompt", prompt);
  if (clip.length === 0) throw invalid("prompt", prompt, "at least one prompt");
  return { kind: "text", clip, t5: secondPrompts("prompt2", prompt2, clip) };
}

/** The negative conditioning if any is given; as long as the batch. */
function negativeSource(
  options: FluxGenerateOptions,
  traits: FluxTraits,
  prompts: number,
): PromptSource | null {
  const { negativePrompt, negativePrompt2, negativePromptEmbeds, negativePooledPromptEmbeds } =
    options;
  if (negativePromptEmbeds) {
    exclude("negativePrompt", negativePrompt, "negativePromptEmbeds");
    exclude("negativePrompt2", negativePrompt2, "negativePromptEmbeds");
    const source = embeds(
      "negativePromptEmbeds",
      negativePromptEmbeds,
      "negativePooledPromptEmbeds",
      negativePooledPromptEmbeds,
      traits,
    );
    const found = promptsOf(source);
    if (found !== prompts) throw invalid("negativePromptEmbeds", found, `a batch of ${prompts}`);
    return source;
  }
  if (negativePooledPromptEmbeds) {
    throw invalid("negativePromptEmbeds", undefined, "given with negativePooledPromptEmbeds");
  }
  if (negativePrompt === undefined) return null;
  requireEncoders("negativePrompt", traits);
  const clip = repeated("negativePrompt", promptList("negativePrompt", negativePrompt), prompts);
  return { kind: "text", clip, t5: secondPrompts("negativePrompt2", negativePrompt2, clip) };
}

function promptsOf(source: PromptSource): number {
  return source.kind === "text" ? source.clip.length : source.text.shape[0];
}

function secondPrompts(
  field: "prompt2" | "negativePrompt2",
  value: string | readonly string[] | undefined,
  first: readonly string[],
): readonly string[] {
  // Like Diffusers, an empty second prompt means the first.
  if (value === undefined || value === "") return first;
  return repeated(field, promptList(field, value), first.length);
}

/** One prompt serves the whole batch. */
function repeated(field: string, prompts: readonly string[], count: number): readonly string[] {
  if (prompts.length === count) return prompts;
  if (prompts.length === 1) return new Array<string>(count).fill(prompts[0]);
  throw invalid(field, `${prompts.length} prompts`, `1 or ${count} prompts`);
}

function promptList(field: string, value: string | readonly string[]): readonly string[] {
  const list = typeof value === "string" ? [value] : value;
  if (!Array.isArray(list) || list.some((prompt) => typeof prompt !== "string")) {
    throw invalid(field, typeof value, "a string or a list of strings");
  }
  const longest = Math.max(0, ...list.map((prompt) => prompt.length));
  if (longest > CALL_LIMITS.promptLength) {
    throw invalid(field, `${longest} characters`, `at most ${CALL_LIMITS.promptLength} characters`);
  }
  return list;
}

function embeds(
  field: string,
  text: HostTensor,
  pooledField: string,
  pooled: HostTensor | undefined,
  traits: FluxTraits,
): PromptSource {
  requireTensor(field, text);
  const [batch, tokens] = text.shape;
  const { jointAttentionDim, pooledProjectionDim } = traits;
  if (text.shape.length !== 3 || text.shape[2] !== jointAttentionDim || batch < 1 || tokens < 1) {
    throw invalid(field, `[${text.shape}]`, `[batch, text tokens, ${jointAttentionDim}]`);
  }
  if (tokens > 4 * CALL_LIMITS.sequenceLength) {
    throw invalid(field, `${tokens} tokens`, `at most ${4 * CALL_LIMITS.sequenceLength} tokens`);
  }
  if (!pooled) throw invalid(pooledField, undefined, `given with ${field}`);
  requireTensor(pooledField, pooled);
  if (!sameShape(pooled.shape, [batch, pooledProjectionDim])) {
    throw invalid(pooledField, `[${pooled.shape}]`, `[${batch}, ${pooledProjectionDim}]`);
  }
  return { kind: "embeds", text: text.cast("float32"), pooled: pooled.cast("float32") };
}

function requireEncoders(field: string, traits: FluxTraits): void {
  if (traits.hasTextEncoder && traits.hasTextEncoder2) return;
  throw invalid(field, "a prompt", "promptEmbeds, because this model folder has no text encoders");
}

function exclude(field: string, value: unknown, other: string): void {
  if (value !== undefined) throw invalid(field, "a prompt", `nothing beside ${other}`);
}

/** Sides in pixels, and the latents they make. */
function requestedSizes(
  options: FluxGenerateOptions,
  traits: FluxTraits,
): { width: number; height: number; sizes: LatentSizes } {
  const side = traits.defaultSide;
  const width = integer(options, "width", side, CALL_LIMITS.side);
  const height = integer(options, "height", side, CALL_LIMITS.side);
  const smallest = 2 * traits.scaleFactor;
  if (width < smallest) throw invalid("width", width, `at least ${smallest} pixels`);
  if (height < smallest) throw invalid("height", height, `at least ${smallest} pixels`);
  if (width * height > CALL_LIMITS.area) {
    throw invalid("width", `${width}x${height}`, `at most ${CALL_LIMITS.area} pixels`);
  }
  const sizes = latentSizes({ width, height }, traits.scaleFactor, traits.inChannels);
  return { width, height, sizes };
}

/** The noise levels before shifting: given, or evenly from 1 to 1 / steps. */
function requestedSigmas(options: FluxGenerateOptions): readonly number[] {
  const { sigmas } = options;
  const steps = integer(options, "numInferenceSteps", 28, CALL_LIMITS.steps);
  if (sigmas === undefined) return evenSigmas(steps);
  const valid = Array.isArray(sigmas) && sigmas.length > 0 && sigmas.length <= CALL_LIMITS.steps &&
    sigmas.every((sigma) => typeof sigma === "number" && sigma > 0 && sigma <= 1);
  if (!valid) {
    throw invalid("sigmas", sigmas, `1 to ${CALL_LIMITS.steps} numbers above 0 and up to 1`);
  }
  return sigmas;
}

/** np.linspace(1, 1 / steps, steps). */
function evenSigmas(steps: number): number[] {
  if (steps === 1) return [1];
  const stride = (1 / steps - 1) / (steps - 1);
  return Array.from({ length: steps }, (_, i) => i === steps - 1 ? 1 / steps : i * stride + 1);
}

function randomness(
  options: FluxGenerateOptions,
  images: number,
): { generators: readonly TorchGenerator[]; seed: Seed | readonly Seed[] | null } {
  const { generator, seed } = options;
  if (generator !== undefined && seed !== undefined) {
    throw invalid("seed", "both", "either seed or generator");
  }
  if (generator !== undefined) {
    const generators = Array.isArray(generator) ? generator : [generator];
    if (!generators.every((item) => item instanceof TorchGenerator)) {
      throw invalid("generator", typeof generator, "a TorchGenerator or a list of them");
    }
    checkCount("generator", generator, generators.length, images);
    return { generators, seed: null };
  }
  const given = seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  const seeds = Array.isArray(given) ? given : [given];
  checkCount("seed", given, seeds.length, images);
  return { generators: seeds.map(generatorOf), seed: given };
}

function generatorOf(seed: Seed): TorchGenerator {
  try {
    return new TorchGenerator(seed);
  } catch (error) {
    if (!(error instanceof HalftoneError)) throw error;
    throw invalid("seed", String(seed), "an integer from -2^63 to 2^64 - 1");
  }
}

/** A list must have one entry per picture; a single value serves the batch. */
function checkCount(field: string, value: unknown, found: number, images: number): void {
  if (!Array.isArray(value) || found === images) return;
  throw invalid(field, `a list of ${found}`, `one for each of ${images} pictures`);
}

function givenLatents(options: FluxGenerateOptions, expected: Shape): HostTensor | null {
  const { latents } = options;
  if (latents === undefined) return null;
  requireTensor("latents", latents);
  if (sameShape(latents.shape, expected)) return latents.cast("float32");
  throw invalid("latents", `[${latents.shape}]`, `packed latents [${expected}]`);
}

function requireTensor(field: string, value: HostTensor): void {
  if (value instanceof HostTensor && isFloat(value.dtype)) return;
  const found = value instanceof HostTensor ? value.dtype : typeof value;
  throw invalid(field, found, "a HostTensor of floats");
}

function outputType({ outputType = "png" }: FluxGenerateOptions): FluxRequest["outputType"] {
  const known = ["png", "pixels", "latent"];
  if (!known.includes(outputType)) throw invalid("outputType", outputType, known.join(", "));
  return outputType;
}

function callback({ onStep }: FluxGenerateOptions): FluxGenerateOptions["onStep"] {
  if (onStep === undefined || typeof onStep === "function") return onStep;
  throw invalid("onStep", typeof onStep, "a function");
}

function integer(
  options: FluxGenerateOptions,
  field: "width" | "height" | "numInferenceSteps" | "numImagesPerPrompt" | "maxSequenceLength",
  fallback: number,
  maximum: number,
): number {
  const value = options[field] ?? fallback;
  if (Number.isInteger(value) && value >= 1 && value <= maximum) return value;
  throw invalid(field, value, `an integer from 1 to ${maximum}`);
}

function number(
  options: FluxGenerateOptions,
  field: "guidanceScale" | "trueCfgScale",
  fallback: number,
): number {
  const value = options[field] ?? fallback;
  if (Number.isFinite(value)) return value;
  throw invalid(field, String(value), "a finite number");
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot generate pictures with this option", {
    field,
    found: found === undefined ? "nothing" : found,
    expected,
  });
}
