/**
 * Models on the Hugging Face Hub: listing a repository and downloading what a pipeline needs into the
 * cache that the Python libraries share (`models--org--name/{blobs,refs,snapshots}`). A file stands
 * under its final name only when its size and hash were right.
 */

import { HalftoneError } from "../errors.ts";
import { type AtomicFile, createAtomicFile, writeAtomic } from "../runtime/atomic_file.ts";
import {
  folderOf,
  joinPath,
  linkFile,
  makeFolder,
  readTextFile,
  statPath,
} from "../runtime/files.ts";
import { createStreamHash, type StreamHash } from "../runtime/hash.ts";
import { environmentVariable } from "../runtime/system.ts";
import { readJsonObject } from "./checkpoint.ts";
import { chooseWithFallback, MODEL_INDEX, parseModelIndex } from "./model_folder.ts";
import { INDEX_LIMITS, parseShardIndex } from "./shard_index.ts";
import { throwIfAborted, transfer, type TransferOptions } from "./transfer.ts";

/** Where models are, unless the environment variable HF_ENDPOINT says otherwise. */
const HUB_ENDPOINT = "https://huggingface.co";

/** A model id and where to put it. */
export interface HubOptions extends TransferOptions {
  /** A branch, tag or commit; "main" unless given. */
  readonly revision?: string;
  /** Such as "fp16". */
  readonly variant?: string;
  /** The folder with the `models--*` folders. */
  readonly cacheFolder: string;
  /** An access token, for models behind a licence; HF_TOKEN unless given. */
  readonly token?: string;
  /** The Hub's address; HF_ENDPOINT or the public Hub unless given. */
  readonly endpoint?: string;
  /** Called as bytes arrive. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** How far a file is. */
export interface DownloadProgress {
  /** The path within the repository. */
  readonly file: string;
  /** Bytes so far. */
  readonly done: number;
  /** Bytes in all. */
  readonly total: number;
}

/** A file of a repository. */
interface HubFile {
  readonly path: string;
  readonly size: number;
  /** The name in `blobs/` and the hash to verify: SHA-256 of large files, git's SHA-1 of small ones. */
  readonly hash: string;
  readonly algorithm: "sha256" | "sha1";
}

/**
 * Downloads a pipeline and returns its snapshot folder. Throws `model_not_found`, `download_failed`,
 * `write_failed`, `unsafe_path`, `aborted`.
 */
export async function downloadModel(id: string, options: HubOptions): Promise<string> {
  return await new HubDownload(id, options).run();
}

/** The folder of a model in the cache. */
export function modelCacheFolder(cacheFolder: string, id: string): string {
  return joinPath(cacheFolder, `models--${id.replace("/", "--")}`);
}

class HubDownload {
  readonly #endpoint: string;
  readonly #folder: string;
  #commit = "";

  constructor(readonly id: string, readonly options: HubOptions) {
    const endpoint = options.endpoint ?? environmentVariable("HF_ENDPOINT") ?? HUB_ENDPOINT;
    this.#endpoint = endpoint.replace(/\/+$/, "");
    this.#folder = modelCacheFolder(options.cacheFolder, id);
  }

  async run(): Promise<string> {
    const files = await this.#list();
    await this.#fetch(requireFile(files, MODEL_INDEX, this.id));
    for (const file of await this.#wantedFiles(files)) await this.#fetch(file);
    await this.#writeRef();
    return this.#snapshot();
  }

  #snapshot(...parts: string[]): string {
    return joinPath(this.#folder, "snapshots", this.#commit, ...parts);
  }

  async #list(): Promise<HubFile[]> {
    const revision = encodeURIComponent(this.options.revision ?? "main");
    const response = await this.#request(`/api/models/${this.id}/revision/${revision}?blobs=true`);
    const body = await response.json().catch(() => null) as HubListing | null;
    const isCommit = typeof body?.sha === "string" && /^[0-9a-f]{40}$/.test(body.sha);
    if (!isCommit || !Array.isArray(body.siblings)) {
      throw failed("Cannot understand the Hub's answer", this.id, "no list of files");
    }
    this.#commit = body.sha;
    return body.siblings.map((sibling) => hubFile(sibling, this.id));
  }

  /** Per component its configs and vocabularies, and its weights in one form only. */
  async #wantedFiles(files: readonly HubFile[]): Promise<HubFile[]> {
    const index = parseModelIndex(await readJsonObject(this.#snapshot(MODEL_INDEX)));
    const wanted: HubFile[] = [];
    for (const [name, part] of index.components) {
      if (part !== null) wanted.push(...await this.#componentFiles(files, name));
    }
    return wanted;
  }

  async #componentFiles(files: readonly HubFile[], component: string): Promise<HubFile[]> {
    const inside = files.filter(({ path }) => folderOf(path) === component);
    const names = inside.map(({ path }) => path.slice(component.length + 1));
    const texts = inside.filter(({ path }) => /\.(json|txt|model)$/.test(path))
      .filter(({ path }) => !/\.safetensors\.index|\.bin\.index/.test(path));
    const weights = chooseWithFallback(names, { variant: this.options.variant });
    if (weights === undefined) return texts;
    const file = requireFile(files, `${component}/${weights.name}`, this.id);
    if (weights.kind === "single") return [...texts, file];
    await this.#fetch(file);
    const text = await readTextFile(this.#snapshot(file.path), INDEX_LIMITS.bytes);
    const { shards } = parseShardIndex(text, file.path);
    return [
      ...texts,
      ...shards.map((shard) => requireFile(files, `${component}/${shard}`, this.id)),
    ];
  }

  async #writeRef(): Promise<void> {
    const ref = joinPath(this.#folder, "refs", this.options.revision ?? "main");
    await makeFolder(folderOf(ref));
    await writeAtomic(ref, this.#commit);
  }

  /** Brings one file into `blobs/` unless it is there, and links it into the snapshot. */
  async #fetch(file: HubFile): Promise<void> {
    const blob = joinPath(this.#folder, "blobs", file.hash);
    const link = this.#snapshot(file.path);
    await makeFolder(folderOf(blob));
    await makeFolder(folderOf(link));
    if ((await statPath(blob))?.size !== file.size) await this.#download(file, blob);
    const up = "../".repeat(file.path.split("/").length + 1);
    if (await statPath(link) === undefined) await linkFile(`${up}blobs/${file.hash}`, link);
  }

  async #download(file: HubFile, target: string): Promise<void> {
    const path = file.path.split("/").map(encodeURIComponent).join("/");
    const address = `/${this.id}/resolve/${this.#commit}/${path}`;
    const bytes = transfer((headers) => this.#ask(address, headers), file.size, this.options);
    const hash = createStreamHash(file.algorithm);
    if (file.algorithm === "sha1") hash.update(new TextEncoder().encode(`blob ${file.size}\0`));
    const output = await createAtomicFile(target);
    try {
      await this.#receive(bytes, file, output, hash);
      await output.commit();
    } catch (error) {
      await output.abort();
      throwIfAborted(this.options.signal);
      if (error instanceof HalftoneError) throw error;
      throw failed("Cannot download the file: the connection broke", file.path, String(error));
    }
  }

  async #receive(
    transferred: AsyncIterable<Uint8Array>,
    file: HubFile,
    output: AtomicFile,
    hash: StreamHash,
  ): Promise<void> {
    let done = 0;
    for await (const bytes of transferred) {
      done += bytes.byteLength;
      if (done > file.size) break;
      hash.update(bytes);
      await output.write(bytes);
      this.options.onProgress?.({ file: file.path, done, total: file.size });
    }
    if (done !== file.size) {
      throw failed("Cannot use the downloaded file: wrong size", file.path, done, file.size);
    }
    const found = hash.digest();
    if (found !== file.hash) {
      throw failed("Cannot use the downloaded file: wrong hash", file.path, found, file.hash);
    }
  }

  async #request(path: string): Promise<Response> {
    try {
      return await this.#ask(path);
    } catch (error) {
      throwIfAborted(this.options.signal);
      throw error instanceof HalftoneError ? error : unreachable(this.id, this.#endpoint, error);
    }
  }

  /** Throws `model_not_found` for a status that tells of an error, and what `fetch` throws. */
  async #ask(path: string, headers: Record<string, string> = {}): Promise<Response> {
    const token = this.options.token ?? environmentVariable("HF_TOKEN");
    const response = await fetch(this.#endpoint + path, {
      headers: token ? { ...headers, authorization: `Bearer ${token}` } : headers,
      signal: this.options.signal,
    });
    if (response.ok) return response;
    await response.body?.cancel();
    throw refused(this.id, response.status);
  }
}

interface HubListing {
  readonly sha: string;
  readonly siblings: readonly HubSibling[];
}

interface HubSibling {
  readonly rfilename?: unknown;
  readonly size?: unknown;
  readonly blobId?: unknown;
  readonly lfs?: { readonly sha256?: unknown; readonly size?: unknown } | null;
}

function hubFile(sibling: HubSibling, id: string): HubFile {
  const { rfilename: path, lfs } = sibling;
  const size = lfs?.size ?? sibling.size;
  const hash = lfs?.sha256 ?? sibling.blobId;
  const isHash = typeof hash === "string" && /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash);
  if (!isHash || !Number.isSafeInteger(size)) {
    throw failed("Cannot understand the Hub's answer", id, `no size or hash for ${path}`);
  }
  const algorithm = hash.length === 64 ? "sha256" : "sha1";
  return { path: checkRelative(path, id), size: size as number, hash, algorithm };
}

function checkRelative(path: unknown, id: string): string {
  const isPlain = typeof path === "string" &&
    path.split("/").every((part) => /^[^/\\:]+$/.test(part) && part !== "." && part !== "..");
  if (isPlain) return path;
  throw new HalftoneError("unsafe_path", "Cannot store a file outside the model folder", {
    file: id,
    found: path,
    expected: "a relative path",
  });
}

function requireFile(files: readonly HubFile[], path: string, id: string): HubFile {
  const file = files.find((candidate) => candidate.path === path);
  if (file !== undefined) return file;
  throw new HalftoneError("model_not_found", "Cannot use the model: a file is missing on the Hub", {
    file: `${id}/${path}`,
    remedy: path === MODEL_INDEX
      ? "Choose a repository in the Diffusers folder layout."
      : "The repository is incomplete.",
  });
}

function failed(message: string, file: string, found: unknown, expected?: unknown): HalftoneError {
  return new HalftoneError("download_failed", message, {
    file,
    found,
    expected,
    remedy: "Try again: the files that arrived whole are kept.",
  });
}

function refused(id: string, status: number): HalftoneError {
  const isClosed = status === 401 || status === 403;
  return new HalftoneError("model_not_found", "Cannot get the model from the Hub", {
    field: "model",
    found: `${id}: HTTP status ${status}`,
    remedy: isClosed
      ? "Accept the model's licence on its page and set HF_TOKEN to an access token, or check the name."
      : status === 404
      ? "Check the name and the revision."
      : "The Hub has trouble; try again later.",
  });
}

function unreachable(id: string, endpoint: string, cause: unknown): HalftoneError {
  return new HalftoneError("model_not_found", "Cannot find the model: no network", {
    field: "model",
    found: `${id}, which is not on this machine, and no answer from ${endpoint}`,
    remedy: "Connect to the network, or give the path of a model folder.",
  }, cause);
}
