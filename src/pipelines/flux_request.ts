/** Checks the options of a FluxPipeline call and brings them into one form. */

import { checkKnownOptions, HalftoneError, invalidOption } from "../errors.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { TorchGenerator } from "../tensor/random.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { CALL_LIMITS, type FluxTraits, integerOption, requireTensor } from "./call_checks.ts";
import type { FluxGenerateOptions, Seed } from "./flux_options.ts";
import { type LatentSizes, latentSizes } from "./latents.ts";
import { negativeSource, positiveSource, promptsOf, type PromptSource } from "./prompt_source.ts";

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
  checkKnownOptions(options, KNOWN_OPTIONS);
  const maxSequenceLength = integerOption(
    "maxSequenceLength",
    options.maxSequenceLength,
    512,
    CALL_LIMITS.sequenceLength,
  );
  const positive = positiveSource(options, traits);
  const prompts = promptsOf(positive);
  const imagesPerPrompt = integerOption(
    "numImagesPerPrompt",
    options.numImagesPerPrompt,
    1,
    CALL_LIMITS.images,
  );
  const images = prompts * imagesPerPrompt;
  if (images > CALL_LIMITS.images) {
    throw invalidOption(
      "numImagesPerPrompt",
      images,
      `at most ${CALL_LIMITS.images} pictures in all`,
    );
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
    signal: abortSignal(options),
  };
}

/** Sides in pixels, and the latents they make. */
function requestedSizes(
  options: FluxGenerateOptions,
  traits: FluxTraits,
): { width: number; height: number; sizes: LatentSizes } {
  const side = traits.defaultSide;
  const width = integerOption("width", options.width, side, CALL_LIMITS.side);
  const height = integerOption("height", options.height, side, CALL_LIMITS.side);
  const smallest = 2 * traits.scaleFactor;
  if (width < smallest) throw invalidOption("width", width, `at least ${smallest} pixels`);
  if (height < smallest) throw invalidOption("height", height, `at least ${smallest} pixels`);
  if (width * height > CALL_LIMITS.area) {
    throw invalidOption("width", `${width}x${height}`, `at most ${CALL_LIMITS.area} pixels`);
  }
  const sizes = latentSizes({ width, height }, traits.scaleFactor, traits.inChannels);
  return { width, height, sizes };
}

/** The noise levels before shifting: given, or evenly from 1 to 1 / steps. */
function requestedSigmas(options: FluxGenerateOptions): readonly number[] {
  const { sigmas } = options;
  const steps = integerOption(
    "numInferenceSteps",
    options.numInferenceSteps,
    28,
    CALL_LIMITS.steps,
  );
  if (sigmas === undefined) return evenSigmas(steps);
  const valid = Array.isArray(sigmas) && sigmas.length > 0 && sigmas.length <= CALL_LIMITS.steps &&
    sigmas.every((sigma) => typeof sigma === "number" && sigma > 0 && sigma <= 1);
  if (!valid) {
    throw invalidOption("sigmas", sigmas, `1 to ${CALL_LIMITS.steps} numbers above 0 and up to 1`);
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
    throw invalidOption("seed", "both", "either seed or generator");
  }
  if (generator !== undefined) {
    const generators = Array.isArray(generator) ? generator : [generator];
    if (!generators.every((item) => item instanceof TorchGenerator)) {
      throw invalidOption("generator", typeof generator, "a TorchGenerator or a list of them");
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
    throw invalidOption("seed", String(seed), "an integer from -2^63 to 2^64 - 1");
  }
}

/** A list must have one entry per picture; a single value serves the batch. */
function checkCount(field: string, value: unknown, found: number, images: number): void {
  if (!Array.isArray(value) || found === images) return;
  throw invalidOption(field, `a list of ${found}`, `one for each of ${images} pictures`);
}

function givenLatents(options: FluxGenerateOptions, expected: Shape): HostTensor | null {
  const { latents } = options;
  if (latents === undefined) return null;
  requireTensor("latents", latents);
  if (sameShape(latents.shape, expected)) return latents.cast("float32");
  throw invalidOption("latents", `[${latents.shape}]`, `packed latents [${expected}]`);
}

function outputType({ outputType = "png" }: FluxGenerateOptions): FluxRequest["outputType"] {
  const known = ["png", "pixels", "latent"];
  if (!known.includes(outputType)) throw invalidOption("outputType", outputType, known.join(", "));
  return outputType;
}

function callback({ onStep }: FluxGenerateOptions): FluxGenerateOptions["onStep"] {
  if (onStep === undefined || typeof onStep === "function") return onStep;
  throw invalidOption("onStep", typeof onStep, "a function");
}

function abortSignal({ signal }: FluxGenerateOptions): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw invalidOption("signal", typeof signal, "an AbortSignal");
}

function number(
  options: FluxGenerateOptions,
  field: "guidanceScale" | "trueCfgScale",
  fallback: number,
): number {
  const value = options[field] ?? fallback;
  if (Number.isFinite(value)) return value;
  throw invalidOption(field, String(value), "a finite number");
}
