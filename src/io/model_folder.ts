/** A model folder as Diffusers writes it: `model_index.json` and a folder per component. */

import { HalftoneError } from "../errors.ts";
import { joinPath, listFolder, statPath } from "../runtime/files.ts";
import { readJsonObject } from "./checkpoint.ts";
import { type Config, invalidConfig } from "./config.ts";
import { chooseWeightFile, type WeightFile, type WeightFileOptions } from "./weight_files.ts";

/** The file that names a pipeline's components. */
export const MODEL_INDEX = "model_index.json";

/** The class of a component, such as diffusers / FluxTransformer2DModel. */
export interface ComponentClass {
  /** The library it belongs to, such as "diffusers" or "transformers". */
  readonly library: string;
  /** The class, such as "FluxTransformer2DModel". */
  readonly className: string;
}

/** A parsed `model_index.json`. */
export interface ModelIndex {
  /** The pipeline's class, such as "FluxPipeline". */
  readonly className: string;
  /** Component name to class, in the file's order; null for a part that was left out. */
  readonly components: ReadonlyMap<string, ComponentClass | null>;
  /** Everything else: settings of the pipeline and `_diffusers_version`. */
  readonly settings: Config;
}

/** A component's folder and what is in it. */
export interface ComponentFolder extends ComponentClass {
  /** The component's name, such as "vae". */
  readonly name: string;
  /** Its folder. */
  readonly path: string;
  /** The names in the folder, sorted. */
  readonly files: readonly string[];
  /** The weights, when it has any: tokenizers and schedulers do not. */
  readonly weights: WeightFile | undefined;
}

/** Reads and checks a folder's `model_index.json`. Throws `missing_file`, `invalid_config`, `unsafe_path`. */
export async function readModelIndex(folder: string): Promise<ModelIndex> {
  const file = joinPath(folder, MODEL_INDEX);
  return parseModelIndex(await readJsonObject(file), file);
}

/** Checks the content of a `model_index.json`. Throws `invalid_config`, `unsafe_path`. */
export function parseModelIndex(config: Config, file?: string): ModelIndex {
  const { _class_name: className, ...rest } = config;
  if (typeof className !== "string") throw invalidConfig("_class_name", className, "a class name");
  const components = new Map<string, ComponentClass | null>();
  const settings: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(rest)) {
    if (!isReference(value) || name.startsWith("_")) settings[name] = value;
    else components.set(checkName(name, file), componentClass(value));
  }
  return { className, components, settings };
}

type Reference = readonly [string | null, string | null];

function isReference(value: unknown): value is Reference {
  return Array.isArray(value) && value.length === 2 &&
    value.every((part) => part === null || typeof part === "string");
}

function componentClass([library, className]: Reference): ComponentClass | null {
  return library === null || className === null ? null : { library, className };
}

/** A component's name becomes a folder's name, so it must be nothing more. */
function checkName(name: string, file?: string): string {
  if (/^[A-Za-z0-9][\w-]*$/.test(name) && name.length <= 100) return name;
  throw new HalftoneError("unsafe_path", "Cannot follow a component out of the model folder", {
    file,
    found: name,
    expected: "a plain folder name",
    remedy: "The model_index.json is damaged or malicious; do not use this model.",
  });
}

/** The components of a model folder, as they lie on the disk. Throws `missing_file` for an absent one. */
export async function listComponents(
  folder: string,
  options: WeightFileOptions = {},
): Promise<ComponentFolder[]> {
  const { components } = await readModelIndex(folder);
  const present = [...components].flatMap(([name, part]) => part === null ? [] : [{ name, part }]);
  return await Promise.all(
    present.map(async ({ name, part }) => {
      const path = joinPath(folder, name);
      const files = await listFolder(path);
      return { ...part, name, path, files, weights: chooseWithFallback(files, options) };
    }),
  );
}

/** As Diffusers does: the variant where there is one, else the plain files. */
export function chooseWithFallback(
  files: readonly string[],
  options: WeightFileOptions,
): WeightFile | undefined {
  return chooseWeightFile(files, options) ??
    chooseWeightFile(files, { ...options, variant: undefined });
}

/** Whether a path is a folder with a `model_index.json`. */
export async function isModelFolder(path: string): Promise<boolean> {
  return (await statPath(joinPath(path, MODEL_INDEX)))?.kind === "file";
}
