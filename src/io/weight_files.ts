/** Which file of a folder holds the weights: the names Diffusers and Transformers have used. */

import { HalftoneError } from "../errors.ts";

/** The stem of weight files: Diffusers' or Transformers'. */
export type WeightsBaseName = "diffusion_pytorch_model" | "model";

/** What to look for. */
export interface WeightFileOptions {
  /** Such as "fp16": files with that infix. */
  readonly variant?: string;
  /** Without one, both are tried. */
  readonly baseName?: WeightsBaseName;
}

/** A file that leads to all weights of a component. */
export interface WeightFile {
  /** One safetensors or GGUF file, or the index of a sharded checkpoint. */
  readonly kind: "single" | "index";
  /** The file's name, without the folder. */
  readonly name: string;
}

const BASE_NAMES: readonly WeightsBaseName[] = ["diffusion_pytorch_model", "model"];

/** Picks the weight file among a folder's names, or undefined when none fits. */
export function chooseWeightFile(
  names: readonly string[],
  options: WeightFileOptions = {},
): WeightFile | undefined {
  const present = new Set(names);
  const bases = options.baseName === undefined ? BASE_NAMES : [options.baseName];
  const candidates = bases.flatMap((base) => candidatesOf(base, options.variant));
  return candidates.find((candidate) => present.has(candidate.name)) ?? loneFile(names, options);
}

function candidatesOf(base: string, variant: string | undefined): WeightFile[] {
  const infix = variant === undefined ? "" : `.${variant}`;
  return [
    { kind: "single", name: `${base}${infix}.safetensors` },
    { kind: "index", name: `${base}.safetensors.index${infix}.json` },
    // How Diffusers named the index of a variant before 2024.
    { kind: "index", name: `${base}${infix}.safetensors.index.json` },
  ];
}

/** A folder with a single safetensors file of any name, or without one a single GGUF file, leaves no doubt. */
function loneFile(names: readonly string[], options: WeightFileOptions): WeightFile | undefined {
  const ending = names.some((name) => name.endsWith(".safetensors")) ? ".safetensors" : ".gguf";
  const files = names.filter((name) => name.endsWith(ending));
  if (options.variant !== undefined || files.length !== 1 || isShard(files[0])) return undefined;
  if (names.some((name) => name.includes(".safetensors.index"))) return undefined;
  return { kind: "single", name: files[0] };
}

function isShard(name: string): boolean {
  return /-\d{5}-of-\d{5}\b/.test(name);
}

/** The variants a folder has, such as ["fp16"]. */
export function listVariants(names: readonly string[]): string[] {
  const found = names.flatMap((name) => {
    const match = /^(?:diffusion_pytorch_model|model)\.(\w+)(?:-\d{5}-of-\d{5})?\.safetensors$/
      .exec(
        name,
      );
    return match === null ? [] : [match[1]];
  });
  return [...new Set(found)].sort();
}

/** The error for a folder without usable weights; says what is there instead. */
export function noWeights(
  folder: string,
  names: readonly string[],
  options: WeightFileOptions,
): HalftoneError {
  const message = "Cannot find the weights in the folder";
  const variants = listVariants(names);
  if (options.variant !== undefined) {
    return new HalftoneError("missing_file", message, {
      file: folder,
      field: "variant",
      found: variants.length > 0 ? `variants ${variants.join(", ")}` : "no variants",
      expected: options.variant,
      remedy: "Leave the variant out, or name one that the folder has.",
    });
  }
  const foreign = names.find((name) => /\.(bin|pt|pth|ckpt|pkl|msgpack|h5|onnx)$/.test(name));
  if (foreign !== undefined) return foreignWeights(folder, foreign);
  return new HalftoneError("missing_file", message, {
    file: folder,
    found: names.filter((name) => name.endsWith(".safetensors")).join(", ") || "no .safetensors",
    expected: candidatesOf(options.baseName ?? BASE_NAMES[0], undefined)[0].name,
    remedy: variants.length > 0
      ? `The folder has variants only; choose one: ${variants.join(", ")}.`
      : "Check that the folder is complete.",
  });
}

function foreignWeights(folder: string, found: string): HalftoneError {
  return new HalftoneError("unsupported_file", "Cannot read weights in this format", {
    file: folder,
    found,
    expected: "a .safetensors file",
    remedy: "Pickled and other files are not read: save the model as safetensors, for example " +
      "with save_pretrained(folder, safe_serialization=True).",
  });
}
