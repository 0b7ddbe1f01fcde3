/** Prompts and embeddings of a pipeline call, checked. */

import { checkKnownOptions, invalidOption } from "../errors.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { sameShape } from "../tensor/shape.ts";
import { CALL_LIMITS, type FluxTraits, integerOption, requireTensor } from "./call_checks.ts";
import type { EncodePromptOptions, FluxGenerateOptions } from "./flux_options.ts";

/** Where conditioning comes from: a prompt for each picture of the batch, or embeddings. */
export type PromptSource =
  | { readonly kind: "text"; readonly clip: readonly string[]; readonly t5: readonly string[] }
  | { readonly kind: "embeds"; readonly text: HostTensor; readonly pooled: HostTensor };

/** Checks prompts to be encoded; throws `invalid_argument` naming the option. */
export function parseEncodeRequest(
  options: EncodePromptOptions,
  traits: FluxTraits,
): { source: PromptSource; maxSequenceLength: number } {
  checkKnownOptions(options, ["prompt", "prompt2", "maxSequenceLength", "signal"]);
  const source = positiveSource(options, traits);
  const { sequenceLength } = CALL_LIMITS;
  return {
    source,
    maxSequenceLength: integerOption(
      "maxSequenceLength",
      options.maxSequenceLength,
      512,
      sequenceLength,
    ),
  };
}

/** The conditioning of a call: prompts or embeddings, never both. */
export function positiveSource(options: FluxGenerateOptions, traits: FluxTraits): PromptSource {
  const { promptEmbeds, pooledPromptEmbeds, prompt, prompt2 } = options;
  if (promptEmbeds) {
    exclude("prompt", prompt, "promptEmbeds");
    exclude("prompt2", prompt2, "promptEmbeds");
    return embeds("promptEmbeds", promptEmbeds, "pooledPromptEmbeds", pooledPromptEmbeds, traits);
  }
  if (pooledPromptEmbeds) {
    throw invalidOption("promptEmbeds", undefined, "given with pooledPromptEmbeds");
  }
  if (prompt === undefined) throw invalidOption("prompt", undefined, "a prompt, or promptEmbeds");
  requireEncoders("prompt", traits);
  const clip = promptList("prompt", prompt);
  if (clip.length === 0) throw invalidOption("prompt", prompt, "at least one prompt");
  return { kind: "text", clip, t5: secondPrompts("prompt2", prompt2, clip) };
}

/** The negative conditioning if any is given; as long as the batch. */
export function negativeSource(
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
    if (found !== prompts) {
      throw invalidOption("negativePromptEmbeds", found, `a batch of ${prompts}`);
    }
    return source;
  }
  if (negativePooledPromptEmbeds) {
    throw invalidOption("negativePromptEmbeds", undefined, "given with negativePooledPromptEmbeds");
  }
  if (negativePrompt === undefined) return null;
  requireEncoders("negativePrompt", traits);
  const clip = repeated("negativePrompt", promptList("negativePrompt", negativePrompt), prompts);
  return { kind: "text", clip, t5: secondPrompts("negativePrompt2", negativePrompt2, clip) };
}

/** Prompts in the batch. */
export function promptsOf(source: PromptSource): number {
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
  throw invalidOption(field, `${prompts.length} prompts`, `1 or ${count} prompts`);
}

function promptList(field: string, value: string | readonly string[]): readonly string[] {
  const list = typeof value === "string" ? [value] : value;
  if (!Array.isArray(list) || list.some((prompt) => typeof prompt !== "string")) {
    throw invalidOption(field, typeof value, "a string or a list of strings");
  }
  const longest = Math.max(0, ...list.map((prompt) => prompt.length));
  if (longest > CALL_LIMITS.promptLength) {
    throw invalidOption(
      field,
      `${longest} characters`,
      `at most ${CALL_LIMITS.promptLength} characters`,
    );
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
    throw invalidOption(field, `[${text.shape}]`, `[batch, text tokens, ${jointAttentionDim}]`);
  }
  if (tokens > 4 * CALL_LIMITS.sequenceLength) {
    throw invalidOption(
      field,
      `${tokens} tokens`,
      `at most ${4 * CALL_LIMITS.sequenceLength} tokens`,
    );
  }
  if (!pooled) throw invalidOption(pooledField, undefined, `given with ${field}`);
  requireTensor(pooledField, pooled);
  if (!sameShape(pooled.shape, [batch, pooledProjectionDim])) {
    throw invalidOption(pooledField, `[${pooled.shape}]`, `[${batch}, ${pooledProjectionDim}]`);
  }
  return { kind: "embeds", text: text.cast("float32"), pooled: pooled.cast("float32") };
}

function requireEncoders(field: string, traits: FluxTraits): void {
  if (traits.hasTextEncoder && traits.hasTextEncoder2) return;
  throw invalidOption(
    field,
    "a prompt",
    "promptEmbeds, because this model folder has no text encoders",
  );
}

function exclude(field: string, value: unknown, other: string): void {
  if (value !== undefined) throw invalidOption(field, "a prompt", `nothing beside ${other}`);
}
