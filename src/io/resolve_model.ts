/** From what the user calls a model to the folder it lies in. */

import { HalftoneError } from "../errors.ts";
import { joinPath, listFolder, readTextFile, statPath } from "../runtime/files.ts";
import { environmentVariable, homeFolder } from "../runtime/system.ts";
import { downloadModel, type HubOptions, modelCacheFolder } from "./hub.ts";
import { chooseWithFallback, isModelFolder, MODEL_INDEX, readModelIndex } from "./model_folder.ts";
import { INDEX_LIMITS, parseShardIndex } from "./shard_index.ts";

/** How to find a model. */
export interface ResolveOptions extends Partial<HubOptions> {
  /** Whether to do without the network; so does the environment variable HF_HUB_OFFLINE. */
  readonly localFilesOnly?: boolean;
}

/**
 * The folder of a model given by path or by Hub id ("org/name"): a local folder, else the Hugging Face
 * cache, else a download into it. Throws `model_not_found`, `download_failed`, `write_failed`,
 * `aborted`.
 */
export async function resolveModel(model: string, options: ResolveOptions = {}): Promise<string> {
  const status = await statPath(model);
  if (status?.kind === "folder") {
    if (await isModelFolder(model)) return model;
    throw notFound(
      model,
      `a folder without ${MODEL_INDEX}`,
      "Give the folder of a whole pipeline.",
    );
  }
  if (status !== undefined) {
    throw notFound(model, "a file", "Give the folder of a whole pipeline.");
  }
  if (!isHubId(model)) throw notFound(model, "no such folder", "Check the path.");
  return await resolveHubId(model, options);
}

async function resolveHubId(id: string, options: ResolveOptions): Promise<string> {
  const cacheFolder = options.cacheFolder ?? hubCacheFolder();
  const revision = checkRevision(options.revision ?? "main");
  const snapshot = await findSnapshot(cacheFolder, id, revision);
  if (snapshot !== undefined && await isComplete(snapshot, options.variant)) return snapshot;
  const offline = environmentVariable("HF_HUB_OFFLINE");
  if (options.localFilesOnly || (offline !== undefined && !/^(0|no|false|off)$/i.test(offline))) {
    const found = snapshot === undefined
      ? "nothing in the cache"
      : "an incomplete copy in the cache";
    throw notFound(id, `${found}, and no network allowed`, "Allow the network, or give a folder.");
  }
  return await downloadModel(id, { ...options, cacheFolder, revision });
}

/** Whether a text can be a Hub id: owner and name, each a plain word. */
export function isHubId(text: string): boolean {
  const parts = text.split("/");
  return parts.length === 2 && !text.includes("..") && !text.includes("--") &&
    parts.every((part) => /^[A-Za-z0-9][\w.-]{0,95}$/.test(part) && !/[.-]$/.test(part));
}

function checkRevision(revision: string): string {
  const plain = revision.length <= 200 &&
    revision.split("/").every((part) => /^[\w][\w.-]*$/.test(part) && !part.includes(".."));
  if (plain) return revision;
  throw new HalftoneError("invalid_argument", "Cannot use this revision", {
    field: "revision",
    found: revision,
    expected: "a branch, tag or commit",
  });
}

/** The Hub's cache: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
export function hubCacheFolder(): string {
  const whole = environmentVariable("HF_HUB_CACHE");
  if (whole !== undefined) return whole;
  const base = environmentVariable("XDG_CACHE_HOME") ?? joinPath(homeFolder() ?? ".", ".cache");
  return joinPath(environmentVariable("HF_HOME") ?? joinPath(base, "huggingface"), "hub");
}

async function findSnapshot(
  cacheFolder: string,
  id: string,
  revision: string,
): Promise<string | undefined> {
  const folder = modelCacheFolder(cacheFolder, id);
  const ref = joinPath(folder, "refs", revision);
  const hasRef = (await statPath(ref))?.kind === "file";
  const commit = hasRef ? (await readTextFile(ref, 1024)).trim() : revision;
  if (!/^[0-9a-f]{40}$/.test(commit)) return undefined;
  const snapshot = joinPath(folder, "snapshots", commit);
  return await statPath(snapshot) === undefined ? undefined : snapshot;
}

/** Whether every component is there with its weights: other programs fetch snapshots in part. */
async function isComplete(snapshot: string, variant?: string): Promise<boolean> {
  if (!await isModelFolder(snapshot)) return false;
  const { components } = await readModelIndex(snapshot);
  for (const [name, part] of components) {
    if (part !== null && !await isComponentComplete(joinPath(snapshot, name), variant)) {
      return false;
    }
  }
  return true;
}

async function isComponentComplete(folder: string, variant?: string): Promise<boolean> {
  if ((await statPath(folder))?.kind !== "folder") return false;
  const names = await listFolder(folder);
  const weights = chooseWithFallback(names, { variant });
  // Only components with weights have a config.json; tokenizers and schedulers name theirs otherwise.
  if (weights === undefined) return names.length > 0 && !names.includes("config.json");
  if (weights.kind === "single") return names.includes("config.json");
  const text = await readTextFile(joinPath(folder, weights.name), INDEX_LIMITS.bytes);
  return parseShardIndex(text).shards.every((shard) => names.includes(shard));
}

function notFound(model: string, found: string, remedy: string): HalftoneError {
  return new HalftoneError("model_not_found", "Cannot find the model", {
    field: "model",
    found: `${model}: ${found}`,
    expected: "a model folder or a Hub id such as owner/name",
    remedy,
  });
}
