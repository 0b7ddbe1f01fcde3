import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { lstat, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import process from "node:process";
import { test } from "node:test";
import { HalftoneError } from "../../src/errors.ts";
import {
  type AtomicFileSystem,
  createAtomicFile,
  writeAtomic,
} from "../../src/runtime/atomic_file.ts";
import { writeCheckpoint, writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { inFolder, namesIn, rejects } from "./support.ts";

/** A file system in memory, one step of which fails. */
class FaultyFiles implements AtomicFileSystem {
  readonly files = new Map<string, Uint8Array>();
  readonly calls: string[] = [];
  open = 0;

  /** `failAt` is the number of the call that fails; `perWrite` is how much one call writes. */
  constructor(readonly failAt = Infinity, readonly code = "EIO", readonly perWrite = Infinity) {}

  #step(call: string): Promise<void> {
    this.calls.push(call);
    if (this.calls.length - 1 !== this.failAt) return Promise.resolve();
    return Promise.reject(Object.assign(new Error(`${this.code}: ${call}`), { code: this.code }));
  }

  target = (path: string) => Promise.resolve({ path, isDevice: false });

  openDevice = (path: string) => Promise.reject(new Error(`${path} is no device`));

  async create(path: string) {
    await this.#step("create");
    assert.ok(!this.files.has(path));
    this.files.set(path, new Uint8Array());
    this.open++;
    return {
      write: async (bytes: Uint8Array) => {
        await this.#step("write");
        const part = bytes.subarray(0, this.perWrite);
        this.files.set(path, Uint8Array.from([...this.files.get(path)!, ...part]));
        return part.byteLength;
      },
      sync: () => this.#step("sync"),
      close: async () => {
        this.open--;
        await this.#step("close");
      },
    };
  }

  async rename(from: string, to: string) {
    await this.#step("rename");
    this.files.set(to, this.files.get(from)!);
    this.files.delete(from);
  }

  syncFolder = () => this.#step("syncFolder");

  remove(path: string) {
    this.files.delete(path);
    return Promise.resolve();
  }
}

const STEPS = ["create", "write", "write", "write", "sync", "close", "rename", "syncFolder"];
const DATA = Uint8Array.of(1, 2, 3, 4, 5);

test("a file is written aside, flushed, renamed, and its folder flushed", async () => {
  const files = new FaultyFiles(Infinity, "", 2);
  await writeAtomic("folder/out.png", DATA, files);
  assert.deepEqual(files.calls, STEPS);
  assert.deepEqual([...files.files], [["folder/out.png", DATA]]);
});

for (const [i, step] of STEPS.slice(0, -1).entries()) {
  for (const code of ["ENOSPC", "EIO"]) {
    test(`nothing is left when ${step} (call ${i}) fails with ${code}, and an old file stays`, async () => {
      const files = new FaultyFiles(i, code, 2);
      const old = Uint8Array.of(9);
      files.files.set("out.png", old);
      const message = code === "ENOSPC" ? /the disk is full.*free some space/ : /Cannot write.*EIO/;
      await rejects(() => writeAtomic("out.png", DATA, files), "write_failed", message);
      assert.deepEqual([...files.files], [["out.png", old]]);
      assert.equal(files.open, 0);
    });
  }
}

test("an aborted file leaves nothing, and can be neither written nor committed afterwards", async () => {
  const files = new FaultyFiles();
  const file = await createAtomicFile("a.bin", files);
  await file.write(DATA);
  await file.abort();
  await file.abort();
  assert.equal(files.files.size, 0);
  await rejects(() => file.write(DATA), "write_failed", /finished already/);
  await rejects(() => file.commit(), "write_failed", /finished already/);
});

test("a committed file survives a late abort", async () => {
  const files = new FaultyFiles();
  const file = await createAtomicFile("a.bin", files);
  await file.write(DATA);
  await file.commit();
  await file.abort();
  assert.deepEqual([...files.files], [["a.bin", DATA]]);
});

test("a real file replaces an old one and leaves no other names", async () => {
  await inFolder(async (folder) => {
    await writeFile(`${folder}/out.bin`, "old");
    await writeAtomic(`${folder}/out.bin`, "new text");
    assert.equal(await readFile(`${folder}/out.bin`, "utf8"), "new text");
    assert.deepEqual(await namesIn(folder), ["out.bin"]);
  });
});

test("a link stays a link, and what it leads to is replaced", async () => {
  await inFolder(async (folder) => {
    await writeFile(`${folder}/real.bin`, "old");
    await symlink("real.bin", `${folder}/link.bin`);
    await writeAtomic(`${folder}/link.bin`, "new");
    assert.equal(await readFile(`${folder}/real.bin`, "utf8"), "new");
    assert.ok((await lstat(`${folder}/link.bin`)).isSymbolicLink());
    assert.deepEqual(await namesIn(folder), ["link.bin", "real.bin"]);
  });
});

test("a pipe is written straight and is still a pipe afterwards", async (context) => {
  if (process.platform === "win32") return context.skip?.("there are no pipes with names here");
  await inFolder(async (folder) => {
    const pipe = `${folder}/pipe`;
    execFileSync("mkfifo", [pipe]);
    const reader = spawn("cat", [pipe]);
    const read = (async () => {
      let text = "";
      for await (const part of reader.stdout) text += part;
      return text;
    })();
    await writeAtomic(pipe, "through");
    assert.equal(await read, "through");
    assert.ok((await lstat(pipe)).isFIFO());
    assert.deepEqual(await namesIn(folder), ["pipe"]);
  });
});

test("a device that is full is reported as full, and stays a device", async (context) => {
  const status = await lstat("/dev/full").catch(() => undefined);
  if (!status?.isCharacterDevice()) return context.skip?.("there is no /dev/full here");
  // Through a link in a folder of ours: if the test fails, nothing of the machine is replaced.
  await inFolder(async (folder) => {
    await symlink("/dev/full", `${folder}/full`);
    await rejects(() => writeAtomic(`${folder}/full`, DATA), "write_failed", /the disk is full/);
    assert.ok((await lstat(`${folder}/full`)).isSymbolicLink());
    assert.deepEqual(await namesIn(folder), ["full"]);
  });
});

test("many bytes arrive in order", async () => {
  await inFolder(async (folder) => {
    const file = await createAtomicFile(`${folder}/big.bin`);
    for (let part = 0; part < 20; part++) await file.write(new Uint8Array(100_000).fill(part));
    assert.deepEqual((await namesIn(folder)).includes("big.bin"), false);
    await file.commit();
    const bytes = await readFile(`${folder}/big.bin`);
    assert.equal(bytes.length, 2_000_000);
    for (let part = 0; part < 20; part++) assert.equal(bytes[part * 100_000 + 99_999], part);
  });
});

test("a folder that does not exist, and a folder in the place of the file, are refused", async () => {
  await inFolder(async (folder) => {
    await rejects(() => writeAtomic(`${folder}/no/out.png`, DATA), "write_failed", /make it first/);
    await mkdir(`${folder}/out.png`);
    await rejects(() => writeAtomic(`${folder}/out.png`, DATA), "write_failed");
    assert.deepEqual(await namesIn(folder), ["out.png"]);
  });
});

test("a relative name is written into the current folder", async () => {
  const name = `halftone-test-${crypto.randomUUID()}.bin`;
  await inFolder(async (folder) => {
    const { cwd, chdir } = await import("node:process");
    const before = cwd();
    chdir(folder);
    try {
      await writeAtomic(name, DATA);
      assert.deepEqual(await namesIn(folder), [name]);
    } finally {
      chdir(before);
    }
  });
});

/** Mounts a file system of a few KiB, or says why that is not possible here. */
function mountTiny(folder: string): string | undefined {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", folder], { stdio: "pipe" });
    return undefined;
  } catch (error) {
    return `cannot mount a tmpfs here: ${String(error).split("\n")[0]}`;
  }
}

test("a real full disk is reported as full, and nothing half-written is left", async (context) => {
  await inFolder(async (root) => {
    const folder = `${root}/tiny`;
    await mkdir(folder);
    const obstacle = mountTiny(folder);
    if (obstacle !== undefined) {
      console.log(`skipped: ${obstacle}`);
      context.skip?.(obstacle);
      return;
    }
    try {
      await writeAtomic(`${folder}/fits.png`, new Uint8Array(1000));
      const large = HostTensor.zeros("uint8", [100_000]);
      const attempts = [
        () => writeAtomic(`${folder}/out.png`, large.bytes),
        () => writeSafetensors(`${folder}/latents.safetensors`, { latents: large }),
        () => writeCheckpoint(`${folder}`, {}, [{ name: "x", tensor: large }]),
      ];
      for (const attempt of attempts) {
        await rejects(attempt, "write_failed", /the disk is full/);
        assert.deepEqual(await namesIn(folder), ["fits.png"]);
      }
    } finally {
      execFileSync("umount", [folder]);
    }
  });
});

test("errors that are ours stay ours", async () => {
  const files = new FaultyFiles(1, "ENOSPC");
  const error = await rejects(() => writeAtomic("a", DATA, files), "write_failed");
  assert.ok(error instanceof HalftoneError);
  assert.equal((error.cause as { code: string }).code, "ENOSPC");
});
