/**
 * FluxTransformer2DModel under the names of Black Forest Labs, as single files have it: query, key,
 * value (and in single blocks the MLP) are one projection, and the last modulation has its two halves
 * the other way round. All of it concerns whole rows, so that quantized weights move as bytes.
 *
 * After Diffusers, src/diffusers/loaders/single_file_utils.py.
 */

import { HalftoneError } from "../errors.ts";
import type { Checkpoint, TensorEntry } from "../io/checkpoint.ts";
import { type TensorPart, type TensorView, viewCheckpoint } from "../io/checkpoint_view.ts";
import { elementCount } from "../tensor/shape.ts";

/** A tensor of a single file, and the tensors of Diffusers that it holds one above the other. */
interface NamePair {
  readonly single: string;
  readonly diffusers: readonly string[];
  /** Whether the two halves are the other way round. */
  readonly swapped?: boolean;
  /** Whether it is a scale beside a weight: one number for all rows, or one per row. */
  readonly scale?: boolean;
}

type ModulePair = readonly [single: string, diffusers: string | readonly string[]];

const OUTER: readonly ModulePair[] = [
  ["time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"],
  ["time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"],
  ["vector_in.in_layer", "time_text_embed.text_embedder.linear_1"],
  ["vector_in.out_layer", "time_text_embed.text_embedder.linear_2"],
  ["guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"],
  ["guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"],
  ["txt_in", "context_embedder"],
  ["img_in", "x_embedder"],
  ["final_layer.linear", "proj_out"],
];

const LAST_MODULATION: ModulePair = ["final_layer.adaLN_modulation.1", "norm_out.linear"];

const DOUBLE: readonly ModulePair[] = [
  ["img_mod.lin", "norm1.linear"],
  ["img_attn.qkv", ["attn.to_q", "attn.to_k", "attn.to_v"]],
  ["img_attn.proj", "attn.to_out.0"],
  ["img_mlp.0", "ff.net.0.proj"],
  ["img_mlp.2", "ff.net.2"],
  ["txt_mod.lin", "norm1_context.linear"],
  ["txt_attn.qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]],
  ["txt_attn.proj", "attn.to_add_out"],
  ["txt_mlp.0", "ff_context.net.0.proj"],
  ["txt_mlp.2", "ff_context.net.2"],
];

/** Vectors that are named differently altogether. */
const DOUBLE_NORMS: readonly ModulePair[] = [
  ["img_attn.norm.query_norm.scale", "attn.norm_q.weight"],
  ["img_attn.norm.key_norm.scale", "attn.norm_k.weight"],
  ["txt_attn.norm.query_norm.scale", "attn.norm_added_q.weight"],
  ["txt_attn.norm.key_norm.scale", "attn.norm_added_k.weight"],
];

const SINGLE: readonly ModulePair[] = [
  ["modulation.lin", "norm.linear"],
  ["linear1", ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]],
  ["linear2", "proj_out"],
];

const SINGLE_NORMS: readonly ModulePair[] = [
  ["norm.query_norm.scale", "attn.norm_q.weight"],
  ["norm.key_norm.scale", "attn.norm_k.weight"],
];

/** Scales beside float8 weights, as ComfyUI names them. */
const SCALES = ["scale_weight", "weight_scale", "scale_input", "input_scale"];

/** What files that hold more than the transformer put before its names. */
const PREFIXES = ["", "model.diffusion_model.", "model.", "diffusion_model."];

/** The checkpoint under Diffusers' names; itself when it has them already. Throws `missing_tensor` ... */
export function fluxFromSingleFile(checkpoint: Checkpoint): Checkpoint {
  const { entries } = checkpoint;
  const prefix = PREFIXES.find((candidate) => entries.has(`${candidate}img_in.weight`));
  if (prefix === undefined) return checkpoint;
  const counts = blockCounts(entries, `${prefix}double_blocks.`, `${prefix}single_blocks.`);
  const views = namePairs(counts).flatMap((pair) => {
    const entry = entries.get(`${prefix}${pair.single}`);
    return entry === undefined ? [] : taken(pair, entry);
  });
  return viewCheckpoint(checkpoint, views);
}

/**
 * The checkpoint under the names of single files; itself when it has them already. Throws
 * `missing_tensor`, or `unexpected_tensor` for one that such files have no name for.
 */
export function fluxToSingleFile(checkpoint: Checkpoint): Checkpoint {
  const { entries } = checkpoint;
  if (!entries.has("x_embedder.weight")) return checkpoint;
  const counts = blockCounts(entries, "transformer_blocks.", "single_transformer_blocks.");
  const left = new Set(entries.keys());
  const views = namePairs(counts).flatMap((pair): TensorView[] => {
    if (!pair.diffusers.some((name) => entries.has(name))) return [];
    const parts = pair.diffusers.flatMap((name) => wholeOf(name, entries.get(name), pair.swapped));
    for (const name of pair.diffusers) left.delete(name);
    return [{ name: pair.single, parts }];
  });
  for (const tensor of left) throw unexpected(tensor, checkpoint.path);
  return viewCheckpoint(checkpoint, views);
}

interface BlockCounts {
  readonly double: number;
  readonly single: number;
}

function blockCounts(
  entries: ReadonlyMap<string, unknown>,
  double: string,
  single: string,
): BlockCounts {
  return { double: countOf(entries, double), single: countOf(entries, single) };
}

/** One more than the highest number after a prefix. */
function countOf(entries: ReadonlyMap<string, unknown>, prefix: string): number {
  let count = 0;
  for (const name of entries.keys()) {
    const number = name.startsWith(prefix)
      ? /^\d{1,4}(?=\.)/.exec(name.slice(prefix.length))
      : null;
    if (number !== null) count = Math.max(count, Number(number[0]) + 1);
  }
  return count;
}

/** All pairs, in the order of the model. */
function namePairs(counts: BlockCounts): NamePair[] {
  const blocks = (count: number, single: string, diffusers: string, [modules, norms]: Pairs) =>
    Array.from({ length: count }, (_, i) => [
      ...withParameters(modules, `${single}.${i}.`, `${diffusers}.${i}.`),
      ...norms.map((pair) => prefixed(pair, `${single}.${i}.`, `${diffusers}.${i}.`)),
    ]).flat();
  return [
    ...withParameters(OUTER),
    ...blocks(counts.double, "double_blocks", "transformer_blocks", [DOUBLE, DOUBLE_NORMS]),
    ...blocks(counts.single, "single_blocks", "single_transformer_blocks", [SINGLE, SINGLE_NORMS]),
    ...withParameters([LAST_MODULATION]).map((pair) => ({ ...pair, swapped: true })),
  ];
}

type Pairs = readonly [modules: readonly ModulePair[], norms: readonly ModulePair[]];

/** The weight, the bias and the scales of each module. */
function withParameters(
  modules: readonly ModulePair[],
  single = "",
  diffusers = "",
): NamePair[] {
  return modules.flatMap((pair) =>
    ["weight", "bias", ...SCALES].map((parameter) => ({
      ...prefixed(pair, single, diffusers, `.${parameter}`),
      scale: SCALES.includes(parameter),
    }))
  );
}

function prefixed(pair: ModulePair, single: string, diffusers: string, suffix = ""): NamePair {
  const names = typeof pair[1] === "string" ? [pair[1]] : pair[1];
  return {
    single: `${single}${pair[0]}${suffix}`,
    diffusers: names.map((name) => `${diffusers}${name}${suffix}`),
  };
}

/** Diffusers' tensors out of one of a single file. */
function taken({ diffusers, swapped, scale }: NamePair, entry: TensorEntry): TensorView[] {
  const rows = entry.shape[0] ?? 1;
  if (scale && elementCount(entry.shape) === 1) {
    return diffusers.map((name) => ({ name, parts: [{ source: entry.name, start: 0, end: 1 }] }));
  }
  if (swapped) return [{ name: diffusers[0], parts: swappedHalves(entry.name, rows) }];
  // Query, key and value have a part each; the MLP, where it is there too, has four.
  const total = diffusers.length === 4 ? 7 : diffusers.length;
  return diffusers.map((name, index) => {
    const start = index * rows / total;
    const end = index === 3 ? rows : (index + 1) * rows / total;
    return { name, parts: [{ source: entry.name, start, end }] };
  });
}

/** A whole tensor, or its halves the other way round. */
function wholeOf(
  name: string,
  entry: TensorEntry | undefined,
  swapped: boolean | undefined,
): TensorPart[] {
  const rows = entry?.shape[0] ?? 1;
  return swapped ? swappedHalves(name, rows) : [{ source: name, start: 0, end: rows }];
}

function swappedHalves(source: string, rows: number): TensorPart[] {
  return [{ source, start: rows / 2, end: rows }, { source, start: 0, end: rows / 2 }];
}

function unexpected(tensor: string, file: string): HalftoneError {
  return new HalftoneError("unexpected_tensor", "Cannot name a tensor as single files of Flux do", {
    file,
    tensor,
    remedy: "Only the transformer of FLUX.1 can be written so.",
  });
}
