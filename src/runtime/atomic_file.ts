/**
 * Files that appear whole or not at all: written under another name beside the final one, flushed
 * to the disk, then renamed. A reader never sees half a file, also not after a crash or a full disk.
 */

import { HalftoneError } from "../errors.ts";
import { folderOf, nameOf, statPath, systemCode } from "./files.ts";
import { builtin } from "./node.ts";

/** A file being written; ends with exactly one `commit` or `abort`. */
export interface AtomicFile {
  /** Where the bytes are until `commit`; they can be read back there. */
  readonly temporaryPath: string;
  /** Appends bytes. Throws `write_failed`; the temporary file is gone then. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Puts the file under its final name, or under another in the same folder, replacing what stood
   * there. Throws `write_failed`.
   */
  commit(finalPath?: string): Promise<void>;
  /** Deletes what was written; safe at any time, does nothing after `commit`. */
  abort(): Promise<void>;
}

/** An open file of an `AtomicFileSystem`. */
export interface WritableFile {
  /** Writes some or all of the bytes at the end, and says how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Flushes what was written to the disk. */
  sync(): Promise<void>;
  /** Closes the file. */
  close(): Promise<void>;
}

/** The few calls that atomic writing needs, so that tests can make each of them fail. */
export interface AtomicFileSystem {
  /** Where a path leads when links are followed, and whether a device or pipe stands there. */
  target(path: string): Promise<{ path: string; isDevice: boolean }>;
  /** Opens a device or pipe. */
  openDevice(path: string): Promise<WritableFile>;
  /** Makes a new file; fails when it exists. */
  create(path: string): Promise<WritableFile>;
  /** Renames a file, replacing one that is there. */
  rename(from: string, to: string): Promise<void>;
  /** Flushes a folder's names to the disk. */
  syncFolder(path: string): Promise<void>;
  /** Deletes a file if it is there. */
  remove(path: string): Promise<void>;
}

/** Writes a whole file atomically. Throws `write_failed`; then nothing is left behind. */
export async function writeAtomic(
  path: string,
  bytes: Uint8Array | string,
  fileSystem?: AtomicFileSystem,
): Promise<void> {
  const file = await createAtomicFile(path, fileSystem);
  await file.write(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
  await file.commit();
}

/**
 * Starts a file of any length. What a link leads to is replaced, not the link. A device or pipe, such
 * as /dev/stdout, cannot be replaced by a file: it is written straight. Throws `write_failed`.
 */
export async function createAtomicFile(
  name: string,
  fileSystem: AtomicFileSystem = systemFiles(),
): Promise<AtomicFile> {
  const { path, isDevice } = await fileSystem.target(name);
  if (isDevice) return await openDevice(path, fileSystem);
  const temporary = temporaryName(path);
  const handle = await fileSystem.create(temporary).catch((error) => {
    throw writeError(path, error);
  });
  return new OpenAtomicFile(path, temporary, handle, fileSystem);
}

async function openDevice(path: string, fileSystem: AtomicFileSystem): Promise<AtomicFile> {
  try {
    return new DeviceFile(path, await fileSystem.openDevice(path));
  } catch (error) {
    throw writeError(path, error);
  }
}

/** What is written is gone at once: there is no name to give and nothing to take back. */
class DeviceFile implements AtomicFile {
  readonly temporaryPath: string;
  #open = true;

  constructor(path: string, readonly handle: WritableFile) {
    this.temporaryPath = path;
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.handle, bytes);
    } catch (error) {
      await this.abort().catch(() => {}); // the first error is the one to report
      throw writeError(this.temporaryPath, error);
    }
  }

  commit(): Promise<void> {
    return this.abort();
  }

  async abort(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.handle.close();
  }
}

async function writeAll(handle: WritableFile, bytes: Uint8Array): Promise<void> {
  let rest = bytes;
  while (rest.byteLength > 0) rest = rest.subarray(await handle.write(rest));
}

class OpenAtomicFile implements AtomicFile {
  #open = true;
  #done = false;

  constructor(
    readonly path: string,
    readonly temporaryPath: string,
    readonly handle: WritableFile,
    readonly fileSystem: AtomicFileSystem,
  ) {}

  write(bytes: Uint8Array): Promise<void> {
    return this.#attempt(() => writeAll(this.handle, bytes));
  }

  commit(finalPath: string = this.path): Promise<void> {
    return this.#attempt(async () => {
      await this.handle.sync();
      await this.#close();
      await this.fileSystem.rename(this.temporaryPath, finalPath);
      this.#done = true;
      // Without this a crash may lose the rename, though never leave half a file.
      await this.fileSystem.syncFolder(folderOf(finalPath));
    });
  }

  async abort(): Promise<void> {
    if (this.#done) return;
    this.#done = true;
    // The first error is the one to report, so these stay silent.
    await this.#close().catch(() => {});
    await this.fileSystem.remove(this.temporaryPath).catch(() => {});
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.handle.close();
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    if (this.#done) throw writeError(this.path, "the file is finished already");
    try {
      await action();
    } catch (error) {
      await this.abort();
      throw writeError(this.path, error);
    }
  }
}

/** Beside the final name, because a rename is atomic only within one file system. */
function temporaryName(path: string): string {
  const random = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const slash = path.length - nameOf(path).length;
  return `${path.slice(0, slash)}.${nameOf(path).slice(0, 100)}.${random}.part`;
}

const REMEDIES: Record<string, string> = {
  ENOSPC: "The disk is full: free some space or choose another place.",
  EDQUOT: "The disk quota is used up: free some space or choose another place.",
  EFBIG: "The file is too large for this file system: choose another place.",
  EACCES: "Choose a folder that can be written to.",
  EPERM: "Choose a folder that can be written to.",
  EROFS: "The file system is read-only: choose another place.",
  ENOENT: "The folder does not exist: make it first.",
  EISDIR: "A folder has this name: choose another.",
};

function writeError(path: string, error: unknown): HalftoneError {
  if (error instanceof HalftoneError) return error;
  const code = systemCode(error);
  const message = code === "ENOSPC"
    ? "Cannot write the file: the disk is full"
    : "Cannot write the file";
  const found = code ?? (error instanceof Error ? error.message : String(error));
  const remedy = REMEDIES[code ?? ""] ?? "Nothing was left under the final name.";
  return new HalftoneError("write_failed", message, { file: path, found, remedy }, error);
}

/** The file system of the machine. */
function systemFiles(): AtomicFileSystem {
  const fs = builtin("node:fs/promises");
  const open = async (path: string, flags: string): Promise<WritableFile> => {
    const handle = await fs.open(path, flags);
    return {
      write: async (bytes) => (await handle.write(bytes, 0, bytes.byteLength)).bytesWritten,
      sync: () => handle.sync(),
      close: () => handle.close(),
    };
  };
  return {
    async target(path) {
      // A path that leads nowhere is a new file; what cannot be asked for fails when it is made.
      const status = await statPath(path).catch(() => undefined);
      if (status?.kind === "other") return { path, isDevice: true };
      const isFile = status?.kind === "file";
      return { path: isFile ? await fs.realpath(path) : path, isDevice: false };
    },
    openDevice: (path) => open(path, "w"),
    create: (path) => open(path, "wx"),
    rename: (from, to) => fs.rename(from, to),
    async syncFolder(path) {
      // Windows cannot open folders, and has no need to.
      const handle = await fs.open(path, "r").catch(() => undefined);
      if (handle === undefined) return;
      await handle.sync().catch(() => {});
      await handle.close();
    },
    remove: (path) => fs.rm(path, { force: true }),
  };
}
