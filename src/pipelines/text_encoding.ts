/** From prompts to what the transformer is conditioned on. */

import type { CLIPTextModel } from "../models/clip.ts";
import type { T5EncoderModel } from "../models/t5.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Component } from "./component.ts";
import type { PromptSource } from "./prompt_source.ts";
import { concatenated } from "./latents.ts";
import type { PromptCache } from "./prompt_cache.ts";
import type { Stage, StageUse } from "./stage.ts";

/** Turns a text into a fixed number of token ids, cut or padded. */
export interface PromptTokenizer {
  encodeText(text: string, options: { maxLength: number }): {
    readonly ids: Int32Array;
    /** What was cut off; empty if nothing. */
    readonly truncatedText: string;
  };
}

/** A text encoder with its tokenizer. */
export interface TextEncoder<Model extends CLIPTextModel | T5EncoderModel> {
  readonly component: Component<Model>;
  readonly tokenizer: PromptTokenizer;
  readonly stage: Stage<{ tokens: number }>;
  /** What it made of earlier prompts. */
  readonly cache: PromptCache;
}

/** The two text encoders of FLUX.1. */
export interface FluxTextEncoders {
  readonly clip: TextEncoder<CLIPTextModel>;
  readonly t5: TextEncoder<T5EncoderModel>;
}

/** How encoders are used. */
export interface EncodeUse extends StageUse {
  /** Told when a prompt is longer than an encoder reads. */
  readonly onWarning: (message: string) => void;
}

/** What one prompt conditions the transformer with; equal prompts share the tensors. */
export interface PromptConditioning {
  /** [text tokens, joint features] */
  readonly text: HostTensor;
  /** [1, pooled features] */
  readonly pooled: HostTensor;
}

/**
 * Conditioning of several sources, a list per source, one encoder after the other, each distinct
 * prompt once.
 */
export async function encodeSources(
  sources: readonly PromptSource[],
  encoders: FluxTextEncoders | null,
  maxSequenceLength: number,
  use: EncodeUse,
): Promise<PromptConditioning[][]> {
  const texts = sources.filter((source) => source.kind === "text");
  const clipPrompts = texts.flatMap((source) => source.clip);
  const t5Prompts = texts.flatMap((source) => source.t5);
  const pooled = encoders && await pooledByPrompt(encoders.clip, clipPrompts, use);
  const states = encoders && await statesByPrompt(encoders.t5, t5Prompts, maxSequenceLength, use);
  return sources.map((source) => {
    if (source.kind === "embeds") return splitEmbeds(source.text, source.pooled);
    return source.clip.map((prompt, index) => ({
      pooled: pooled!.get(prompt)!,
      text: states!.get(source.t5[index])!,
    }));
  });
}

/** CLIP's pooled vector, [1, hidden], of each distinct prompt. */
async function pooledByPrompt(
  encoder: TextEncoder<CLIPTextModel>,
  prompts: readonly string[],
  use: EncodeUse,
): Promise<Map<string, HostTensor>> {
  const { component: { model }, tokenizer } = encoder;
  const { hiddenSize, maxPositionEmbeddings } = model.config;
  const states = await statesByPrompt(encoder, prompts, maxPositionEmbeddings, use);
  return new Map([...states].map(([prompt, tensor]) => {
    const { ids } = tokenizer.encodeText(prompt, { maxLength: maxPositionEmbeddings });
    const start = model.pooledRow(ids) * hiddenSize;
    const row = tensor.toFloat32().slice(start, start + hiddenSize);
    return [prompt, HostTensor.fromFloat32(row, [1, hiddenSize])];
  }));
}

/** An encoder's states, [tokens, features], of each distinct prompt. */
async function statesByPrompt(
  encoder: TextEncoder<CLIPTextModel | T5EncoderModel>,
  prompts: readonly string[],
  tokens: number,
  use: EncodeUse,
): Promise<Map<string, HostTensor>> {
  const states = new Map<string, HostTensor>();
  const unknown: EncodedPrompt[] = [];
  for (const prompt of new Set(prompts)) {
    const { ids, truncatedText } = encoder.tokenizer.encodeText(prompt, { maxLength: tokens });
    if (truncatedText) use.onWarning(cutWarning(encoder.stage.name, tokens, truncatedText));
    const known = encoder.cache.get(prompt, tokens);
    if (known) states.set(prompt, known);
    else unknown.push({ prompt, ids });
  }
  for (const [prompt, made] of await encodeAll(encoder, unknown, tokens, use)) {
    states.set(prompt, made);
    encoder.cache.set(prompt, tokens, made);
  }
  return states;
}

interface EncodedPrompt {
  readonly prompt: string;
  readonly ids: Int32Array;
}

/** Runs the encoder; where there is nothing to encode, its weights are not even loaded. */
async function encodeAll(
  { stage }: TextEncoder<CLIPTextModel | T5EncoderModel>,
  prompts: readonly EncodedPrompt[],
  tokens: number,
  use: EncodeUse,
): Promise<[prompt: string, states: HostTensor][]> {
  if (prompts.length === 0) return [];
  return await stage.run({ tokens }, use, async (program) => {
    const made: [string, HostTensor][] = [];
    for (const { prompt, ids } of prompts) {
      program.write("ids", HostTensor.fromInt32(ids));
      await program.run({ signal: use.signal });
      made.push([prompt, program.read("states")]);
    }
    return made;
  });
}

function cutWarning(encoder: string, tokens: number, cut: string): string {
  const text = cut.length > 100 ? `${cut.slice(0, 100)}...` : cut;
  return `${encoder} reads ${tokens} tokens; this part of the prompt was cut: "${text}"`;
}

/** Given embeddings, one conditioning per row. */
export function splitEmbeds(text: HostTensor, pooled: HostTensor): PromptConditioning[] {
  const [batch, tokens, features] = text.shape;
  const states = text.toFloat32();
  const vectors = pooled.toFloat32();
  const width = pooled.shape[1];
  return Array.from({ length: batch }, (_, row) => ({
    text: HostTensor.fromFloat32(
      states.slice(row * tokens * features, (row + 1) * tokens * features),
      [tokens, features],
    ),
    pooled: HostTensor.fromFloat32(vectors.slice(row * width, (row + 1) * width), [1, width]),
  }));
}

/** The reverse of `splitEmbeds`. */
export function joinEmbeds(conditionings: readonly PromptConditioning[]): {
  promptEmbeds: HostTensor;
  pooledPromptEmbeds: HostTensor;
} {
  const batch = conditionings.length;
  const join = (tensors: HostTensor[], shape: Shape): HostTensor =>
    HostTensor.fromFloat32(concatenated(tensors.map((tensor) => tensor.toFloat32())), shape);
  const [{ text, pooled }] = conditionings;
  return {
    promptEmbeds: join(conditionings.map((one) => one.text), [batch, ...text.shape]),
    pooledPromptEmbeds: join(conditionings.map((one) => one.pooled), [batch, pooled.shape[1]]),
  };
}
