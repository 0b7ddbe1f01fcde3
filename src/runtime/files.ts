/** Files, on the `node:fs/promises` of Deno and Bun. Paths use "/" (Windows takes it as well). */

import type { FileHandle } from "node:fs/promises";
import { type ErrorCode, HalftoneError } from "../errors.ts";
import { type ByteSource, checkRange } from "./byte_source.ts";
import { builtin } from "./node.ts";

/** What a path leads to. */
export interface FileStatus {
  /** Links count as what they lead to. */
  readonly kind: "file" | "folder" | "other";
  /** Bytes of a file. */
  readonly size: number;
}

/** Bytes per system call; one call must stay below 2 GiB. */
const CHUNK = 64 * 2 ** 20;

/** The whole file. Throws `missing_file`; with `limit`, `unsupported_file` when it is larger. */
export async function readFile(path: string, limit = Infinity): Promise<Uint8Array> {
  const source = await openFileSource(path);
  try {
    if (source.size > limit) throw tooLarge(path, source.size, limit);
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

/** The whole file as UTF-8 text. Throws as `readFile`, and `unsupported_file` when it is not UTF-8. */
export async function readTextFile(path: string, limit = Infinity): Promise<string> {
  const bytes = await readFile(path, limit);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const detail = { file: path, expected: "UTF-8 text" };
    throw new HalftoneError("unsupported_file", "Cannot read the file as text", detail, cause);
  }
}

/** Opens a file for reading by ranges. Throws `missing_file`. */
export async function openFileSource(path: string): Promise<ByteSource> {
  const handle = await reading(path, () => builtin("node:fs/promises").open(path, "r"));
  try {
    const status = await handle.stat();
    if (!status.isFile()) throw notAFile(path);
    return fileSource(path, handle, status.size);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function fileSource(path: string, handle: FileHandle, size: number): ByteSource {
  return {
    path,
    size,
    read: async (offset, length, into) => {
      checkRange(path, size, offset, length);
      const target = into?.subarray(0, length) ?? new Uint8Array(length);
      await reading(path, () => fill(path, handle, offset, target));
      return target;
    },
    close: () => handle.close(),
  };
}

async function fill(path: string, handle: FileHandle, offset: number, target: Uint8Array) {
  let done = 0;
  while (done < target.byteLength) {
    const length = Math.min(CHUNK, target.byteLength - done);
    const { bytesRead } = await handle.read(target, done, length, offset + done);
    if (bytesRead === 0) checkRange(path, offset + done, offset, target.byteLength);
    done += bytesRead;
  }
}

/** What stands at the path, or undefined when nothing does. Follows links. */
export async function statPath(path: string): Promise<FileStatus | undefined> {
  try {
    const status = await builtin("node:fs/promises").stat(path);
    const kind = status.isFile() ? "file" : status.isDirectory() ? "folder" : "other";
    return { kind, size: status.size };
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw readError(path, error);
  }
}

/** The names in a folder, sorted. Throws `missing_file`. */
export async function listFolder(path: string): Promise<string[]> {
  const names = await reading(path, () => builtin("node:fs/promises").readdir(path));
  return names.sort();
}

/** The path with all links resolved. Throws `missing_file`. */
export function realPath(path: string): Promise<string> {
  return reading(path, () => builtin("node:fs/promises").realpath(path));
}

/** Makes a folder and those above it. Throws `write_failed`. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await builtin("node:fs/promises").mkdir(path, { recursive: true });
  } catch (error) {
    const remedy = "Choose a folder that can be written to.";
    throw writeError("Cannot make the folder", path, error, remedy);
  }
}

/** Deletes a file or a folder with all in it; silent when there is none. Throws `write_failed`. */
export async function remove(path: string): Promise<void> {
  try {
    await builtin("node:fs/promises").rm(path, { recursive: true, force: true });
  } catch (error) {
    throw writeError("Cannot delete", path, error);
  }
}

/** Puts a link to `target` (relative to the link's folder) at `path`; a copy where links are not allowed. */
export async function linkFile(target: string, path: string): Promise<void> {
  const fs = builtin("node:fs/promises");
  try {
    await fs.symlink(target, path).catch((error) =>
      systemCode(error) === "EEXIST"
        ? undefined
        : fs.copyFile(joinPath(folderOf(path), target), path)
    );
  } catch (error) {
    throw writeError("Cannot link the file", path, error);
  }
}

/** Renames a file or folder. Throws `write_failed`. */
export async function renamePath(from: string, to: string): Promise<void> {
  try {
    await builtin("node:fs/promises").rename(from, to);
  } catch (error) {
    throw writeError("Cannot rename", to, error);
  }
}

/** Joins path parts with "/". */
export function joinPath(...parts: string[]): string {
  return parts.filter((part) => part !== "").join("/").replaceAll(/\/+/g, "/");
}

/** The folder a path lies in: "." for a plain name. */
export function folderOf(path: string): string {
  const end = lastSeparator(path);
  return end < 0 ? "." : path.slice(0, end) || "/";
}

/** The last part of a path. */
export function nameOf(path: string): string {
  return path.slice(lastSeparator(path) + 1);
}

function lastSeparator(path: string): number {
  return Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
}

async function reading<Result>(path: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action();
  } catch (error) {
    throw readError(path, error);
  }
}

/** The system's code of an error, such as "ENOENT". */
export function systemCode(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code;
}

function isAbsent(error: unknown): boolean {
  return systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR";
}

function readError(path: string, error: unknown): HalftoneError {
  if (error instanceof HalftoneError) return error;
  const code: ErrorCode = "missing_file";
  const [found, remedy] = isAbsent(error)
    ? ["nothing at this path", "Check the path."]
    : [systemCode(error) ?? String(error), "Check that the file can be read by this user."];
  return new HalftoneError(code, "Cannot read the file", { file: path, found, remedy }, error);
}

function writeError(
  message: string,
  path: string,
  error: unknown,
  remedy?: string,
): HalftoneError {
  if (error instanceof HalftoneError) return error;
  const found = systemCode(error) ?? String(error);
  return new HalftoneError("write_failed", message, { file: path, found, remedy }, error);
}

function notAFile(path: string): HalftoneError {
  const detail = { file: path, found: "a folder or device", expected: "a file" };
  return new HalftoneError("missing_file", "Cannot read the file", detail);
}

function tooLarge(path: string, size: number, limit: number): HalftoneError {
  const detail = { file: path, found: `${size} bytes`, expected: `at most ${limit} bytes` };
  return new HalftoneError("unsupported_file", "Cannot read so large a file", detail);
}
