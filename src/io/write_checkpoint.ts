/** Saving components and whole model folders in Diffusers' layout. */

import { HalftoneError } from "../errors.ts";
import { createAtomicFile, writeAtomic } from "../runtime/atomic_file.ts";
import {
  folderOf,
  joinPath,
  listFolder,
  makeFolder,
  nameOf,
  openFileSource,
  remove,
  renamePath,
  statPath,
} from "../runtime/files.ts";
import { stateFileNames } from "../quantization/auto.ts";
import { type JsonValue, pythonJson } from "../quantization/python_json.ts";
import type { Quantizer, TensorHeader, TensorHeaders } from "../quantization/quantizer.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import {
  CheckpointWriter,
  type WriteCheckpointOptions,
  type WrittenCheckpoint,
} from "./checkpoint_writer.ts";
import type { Config } from "./config.ts";
import { layoutSafetensors } from "./safetensors_writer.ts";
import { torchArchive } from "./torch_archive.ts";

/** A tensor and the name to save it under. */
export interface NamedTensor {
  /** The name to store it under. */
  readonly name: string;
  /** Its type, shape and data. */
  readonly tensor: HostTensor;
}

/** Tensors as they come; an async one is asked for the next only when the last is on the disk. */
export type TensorStream = AsyncIterable<NamedTensor> | Iterable<NamedTensor>;

/** How to write a component folder. */
export interface WriteFolderOptions extends WriteCheckpointOptions {
  /** The file that a library wants beside the weights, from what was written. */
  readonly stateFile?: Quantizer["stateFile"];
}

/**
 * Writes a component folder: the weights (sharded when large), a library's state file, then config.json.
 * Throws `write_failed`; whatever stands under a final name then is whole.
 */
export async function writeCheckpoint(
  folder: string,
  config: Config | undefined,
  tensors: TensorStream,
  options: WriteFolderOptions = {},
): Promise<WrittenCheckpoint> {
  const writer = new CheckpointWriter(folder, options);
  const entries = new Map<string, TensorHeader>();
  try {
    for await (const { name, tensor } of tensors) {
      await writer.add(name, tensor);
      entries.set(name, { dtype: tensor.dtype, shape: tensor.shape });
    }
    const written = await writer.finish();
    await writeStateFile(folder, { entries, metadata: options.metadata }, options);
    if (config !== undefined) await writeJson(joinPath(folder, "config.json"), config);
    return written;
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

async function writeStateFile(
  folder: string,
  written: TensorHeaders,
  { stateFile }: WriteFolderOptions,
): Promise<void> {
  const state = stateFile?.(written) ?? null;
  if (state) await writeAtomic(joinPath(folder, state.name), torchArchive(state.content));
  // One of an earlier save would contradict the new weights.
  const stale = stateFileNames().filter((name) => name !== state?.name);
  await Promise.all(stale.map((name) => remove(joinPath(folder, name))));
}

/** Writes one safetensors file that fits memory, such as latents. Throws `write_failed`. */
export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, HostTensor>>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  const named = Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => ({
    name,
    dtype,
    shape,
    bytes,
  }));
  const layout = layoutSafetensors(named, metadata);
  const file = await createAtomicFile(path);
  await file.write(layout.header);
  for (const { bytes } of layout.order) await file.write(bytes);
  await file.commit();
}

/** Writes JSON as Diffusers does: two spaces, keys sorted, a line end. Throws `write_failed`. */
export async function writeJson(path: string, value: Config): Promise<void> {
  await writeAtomic(path, `${pythonJson(value as JsonValue, { indent: 2, sortKeys: true })}\n`);
}

/** Copies a file; it appears whole or not at all. Throws `missing_file`, `write_failed`. */
export async function copyFile(from: string, to: string): Promise<void> {
  const source = await openFileSource(from);
  try {
    const target = await createAtomicFile(to);
    const step = 16 * 2 ** 20;
    try {
      for (let done = 0; done < source.size; done += step) {
        await target.write(await source.read(done, Math.min(step, source.size - done)));
      }
      await target.commit();
    } finally {
      await target.abort();
    }
  } finally {
    await source.close();
  }
}

/** How deep a model folder may nest; a component is one deep. */
const MAX_FOLDER_DEPTH = 8;

/** Copies a folder except the top-level names to leave out and temporary files. */
export async function copyFolder(
  from: string,
  to: string,
  leaveOut: ReadonlySet<string> = new Set(),
  depth = 0,
): Promise<void> {
  if (depth > MAX_FOLDER_DEPTH) {
    const detail = { file: from, expected: `at most ${MAX_FOLDER_DEPTH} folders in each other` };
    throw new HalftoneError("unsupported_file", "Cannot copy so deep a folder", detail);
  }
  await makeFolder(to);
  for (const name of await listFolder(from)) {
    if (leaveOut.has(name) || name.endsWith(".part")) continue;
    const [source, target] = [joinPath(from, name), joinPath(to, name)];
    const kind = (await statPath(source))?.kind;
    if (kind === "folder") await copyFolder(source, target, undefined, depth + 1);
    else if (kind === "file") await copyFile(source, target);
  }
}

/**
 * Writes a whole model folder: copies `source` except the components to replace, lets `write` make
 * those, and gives the folder its name at the end. Throws `write_failed`, also when something stands
 * under that name already.
 */
export async function writeModelFolder(
  source: string,
  destination: string,
  replaced: readonly string[],
  write: (folder: string) => Promise<void>,
): Promise<void> {
  const target = destination.replace(/[/\\]+$/, "");
  await checkVacant(target);
  const random = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const temporary = joinPath(folderOf(target), `.${nameOf(target)}.${random}.part`);
  try {
    await copyFolder(source, temporary, new Set(replaced));
    await write(temporary);
    await renamePath(temporary, target);
  } catch (error) {
    await remove(temporary).catch(() => {}); // the first error is the one to report
    throw error;
  }
}

async function checkVacant(path: string): Promise<void> {
  const status = await statPath(path);
  const isEmpty = status?.kind === "folder" && (await listFolder(path)).length === 0;
  if (status === undefined || isEmpty) return;
  throw new HalftoneError("write_failed", "Cannot write over what is there", {
    file: path,
    found: status.kind === "folder" ? "a folder that is not empty" : "a file",
    remedy: "Choose another name or delete it first.",
  });
}
