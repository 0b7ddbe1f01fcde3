/**
 * Writing a component's checkpoint one tensor at a time, in any order, without knowing the shapes
 * beforehand (a quantizer learns some of them only as it goes): each tensor is spooled to a file beside
 * the final one; when a shard is full its header is laid out and the data is copied in the order the
 * format wants. No file has its final name before all of them are whole.
 */

import { HalftoneError } from "../errors.ts";
import { type AtomicFile, createAtomicFile, writeAtomic } from "../runtime/atomic_file.ts";
import { joinPath, listFolder, makeFolder, openFileSource, remove } from "../runtime/files.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { compareNames, layoutSafetensors, type TensorDescription } from "./safetensors_writer.ts";
import type { WeightsBaseName } from "./weight_files.ts";

/** How to write a checkpoint. */
export interface WriteCheckpointOptions {
  /** The stem of the files; Diffusers' "diffusion_pytorch_model" unless given. */
  readonly baseName?: WeightsBaseName;
  /** Such as "fp16": an infix of the names. */
  readonly variant?: string;
  /** Bytes of tensor data per file, 10 GB unless given; a larger tensor gets a file of its own. */
  readonly maxShardSize?: number;
  /** The files' `__metadata__`; `{"format": "pt"}` unless given. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** What was written. */
export interface WrittenCheckpoint {
  /** File names, without the folder. */
  readonly files: readonly string[];
  /** Bytes of tensor data. */
  readonly totalSize: number;
}

/** As in Diffusers' save_pretrained: "10GB". */
const DEFAULT_SHARD_SIZE = 10e9;
const COPY_BYTES = 16 * 2 ** 20;

interface SpooledTensor extends TensorDescription {
  readonly spoolOffset: number;
  readonly bytes: number;
}

/** Writes the weights of one folder; ends with `finish` or `abort`. */
export class CheckpointWriter {
  readonly #shards: FinishedShard[] = [];
  readonly #names = new Set<string>();
  #current: ShardSpool | undefined;
  #totalSize = 0;

  /** A writer into a folder, which is made when the first tensor comes. */
  constructor(readonly folder: string, readonly options: WriteCheckpointOptions = {}) {}

  /** Adds a tensor. Throws `invalid_argument` for a name given twice, `write_failed`. */
  async add(name: string, tensor: HostTensor): Promise<void> {
    if (this.#names.has(name) || name === "__metadata__") {
      throw new HalftoneError("invalid_argument", "Cannot write two tensors of one name", {
        tensor: name,
      });
    }
    this.#names.add(name);
    const limit = this.options.maxShardSize ?? DEFAULT_SHARD_SIZE;
    const size = tensor.bytes.byteLength;
    const isFull = this.#current !== undefined && this.#current.size + size > limit;
    if (isFull) await this.#finishShard();
    this.#current ??= await ShardSpool.create(this.folder);
    await this.#current.add(name, tensor);
    this.#totalSize += size;
  }

  /** Puts all files under their names and removes those of an earlier save. Throws `write_failed`. */
  async finish(): Promise<WrittenCheckpoint> {
    this.#current ??= this.#shards.length === 0 ? await ShardSpool.create(this.folder) : undefined;
    if (this.#current !== undefined) await this.#finishShard();
    const count = this.#shards.length;
    const files = this.#shards.map((_, i) => shardName(this.options, i, count));
    for (const [i, shard] of this.#shards.entries()) {
      await shard.file.commit(joinPath(this.folder, files[i]));
    }
    if (count > 1) files.push(await this.#writeIndex(files));
    await removeStale(this.folder, this.options, files);
    return { files, totalSize: this.#totalSize };
  }

  /** Deletes everything written so far. */
  async abort(): Promise<void> {
    await this.#current?.remove();
    await Promise.all(this.#shards.map((shard) => shard.file.abort()));
  }

  async #finishShard(): Promise<void> {
    const spool = this.#current!;
    this.#current = undefined;
    try {
      this.#shards.push(await spool.finish(this.options));
    } finally {
      await spool.remove();
    }
  }

  async #writeIndex(files: readonly string[]): Promise<string> {
    const pairs = this.#shards.flatMap((shard, i) => shard.names.map((name) => [name, files[i]]));
    pairs.sort(([a], [b]) => compareNames(a, b));
    const name = indexName(this.options);
    const map = pairs.map((pair) => `    ${pair.map((text) => JSON.stringify(text)).join(": ")}`);
    // As Python's json.dumps(indent=2, sort_keys=True); JSON.stringify would reorder keys like "12".
    const text = `{\n  "metadata": {\n    "total_size": ${this.#totalSize}\n  },\n` +
      `  "weight_map": {\n${map.join(",\n")}\n  }\n}\n`;
    await writeAtomic(joinPath(this.folder, name), text);
    return name;
  }
}

interface FinishedShard {
  /** Written, but still under its temporary name. */
  readonly file: AtomicFile;
  readonly names: readonly string[];
}

/** The data of one shard in the order it came, in a file that never gets a name of its own. */
class ShardSpool {
  readonly #tensors: SpooledTensor[] = [];
  size = 0;

  private constructor(readonly folder: string, readonly file: AtomicFile) {}

  static async create(folder: string): Promise<ShardSpool> {
    await makeFolder(folder);
    return new ShardSpool(folder, await createAtomicFile(joinPath(folder, "spool")));
  }

  async add(name: string, { dtype, shape, bytes }: HostTensor): Promise<void> {
    await this.file.write(bytes);
    const description = { name, dtype, shape, spoolOffset: this.size, bytes: bytes.byteLength };
    this.#tensors.push(description);
    this.size += bytes.byteLength;
  }

  /** Writes the shard in the format's order; it gets its name later. */
  async finish(options: WriteCheckpointOptions): Promise<FinishedShard> {
    const layout = layoutSafetensors(this.#tensors, options.metadata);
    const output = await createAtomicFile(joinPath(this.folder, "shard"));
    try {
      await output.write(layout.header);
      await this.#copy(layout.order, output);
    } catch (error) {
      await output.abort();
      throw error;
    }
    return { file: output, names: this.#tensors.map(({ name }) => name) };
  }

  async #copy(order: readonly SpooledTensor[], output: AtomicFile): Promise<void> {
    const source = await openFileSource(this.file.temporaryPath);
    try {
      for (const { spoolOffset, bytes } of order) {
        for (let done = 0; done < bytes; done += COPY_BYTES) {
          const length = Math.min(COPY_BYTES, bytes - done);
          await output.write(await source.read(spoolOffset + done, length));
        }
      }
    } finally {
      await source.close();
    }
  }

  remove(): Promise<void> {
    return this.file.abort();
  }
}

function stem(options: WriteCheckpointOptions): string {
  const base = options.baseName ?? "diffusion_pytorch_model";
  return options.variant === undefined ? base : `${base}.${options.variant}`;
}

function shardName(options: WriteCheckpointOptions, shard: number, count: number): string {
  const number = (value: number) => String(value).padStart(5, "0");
  const suffix = count === 1 ? "" : `-${number(shard + 1)}-of-${number(count)}`;
  return `${stem(options)}${suffix}.safetensors`;
}

function indexName(options: WriteCheckpointOptions): string {
  const variant = options.variant === undefined ? "" : `.${options.variant}`;
  return `${options.baseName ?? "diffusion_pytorch_model"}.safetensors.index${variant}.json`;
}

/** An earlier save may have had another number of shards; its files would contradict the new ones. */
async function removeStale(
  folder: string,
  options: WriteCheckpointOptions,
  written: readonly string[],
): Promise<void> {
  const shard = /^-\d{5}-of-\d{5}\.safetensors$/;
  const stale = (await listFolder(folder)).filter((name) => {
    const isOurs = name === indexName(options) || name === `${stem(options)}.safetensors` ||
      (name.startsWith(stem(options)) && shard.test(name.slice(stem(options).length)));
    return isOurs && !written.includes(name);
  });
  await Promise.all(stale.map((name) => remove(joinPath(folder, name))));
}
