import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import process from "node:process";
import { test } from "node:test";
import { HalftoneError } from "../../src/errors.ts";
import { memorySource } from "../../src/runtime/byte_source.ts";
import {
  folderOf,
  joinPath,
  linkFile,
  listFolder,
  makeFolder,
  nameOf,
  openFileSource,
  readFile,
  readTextFile,
  realPath,
  remove,
  renamePath,
  statPath,
} from "../../src/runtime/files.ts";
import { createStreamHash } from "../../src/runtime/hash.ts";
import { builtin } from "../../src/runtime/node.ts";
import {
  cpuCount,
  environmentVariable,
  memoryBytes,
  processMemoryBytes,
  runtimeName,
  runtimeVersion,
} from "../../src/runtime/system.ts";
import { spawnWorker } from "../../src/runtime/workers.ts";

async function inFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(`${os.tmpdir()}/halftone-test-`);
  try {
    await action(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof HalftoneError && error.code === code;
}

test("the runtime knows its own name and version", () => {
  const expected = process.versions.bun ? "bun" : process.versions.deno ? "deno" : "node";
  assert.equal(runtimeName(), expected);
  assert.match(runtimeVersion(), /^\d+\.\d+\.\d+/);
});

test("the machine's figures are those that the system tells", () => {
  assert.ok(Number.isInteger(cpuCount()) && cpuCount() >= 1 && cpuCount() <= os.cpus().length);
  assert.equal(memoryBytes()?.total, os.totalmem());
  assert.ok(memoryBytes()!.free > 0 && memoryBytes()!.free <= os.totalmem());
  assert.ok(processMemoryBytes()! > 1e6 && processMemoryBytes()! < os.totalmem());
});

test("an empty environment variable counts as unset", () => {
  process.env.HALFTONE_TEST_VARIABLE = "";
  assert.equal(environmentVariable("HALFTONE_TEST_VARIABLE"), undefined);
  process.env.HALFTONE_TEST_VARIABLE = "x";
  assert.equal(environmentVariable("HALFTONE_TEST_VARIABLE"), "x");
  delete process.env.HALFTONE_TEST_VARIABLE;
});

test("ranges of a file and of memory are read, into given memory too", async () => {
  await inFolder(async (folder) => {
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
    await writeFile(`${folder}/x`, bytes);
    for (const source of [await openFileSource(`${folder}/x`), memorySource(bytes)]) {
      assert.equal(source.size, 100);
      assert.deepEqual([...await source.read(10, 3)], [10, 11, 12]);
      const shared = new Uint8Array(new SharedArrayBuffer(8));
      assert.deepEqual([...await source.read(96, 4, shared)], [96, 97, 98, 99]);
      assert.deepEqual([...shared], [96, 97, 98, 99, 0, 0, 0, 0]);
      assert.deepEqual([...await source.read(100, 0)], []);
      const outside = [[99, 2], [101, 0], [-1, 1], [0, -1], [0, 101]];
      for (const [offset, length] of outside) {
        await assert.rejects(() => source.read(offset, length), hasCode("missing_file"));
      }
      await source.close();
    }
  });
});

test("reading a folder, a missing file, a binary as text or a file over a limit fails", async () => {
  await inFolder(async (folder) => {
    await assert.rejects(() => openFileSource(folder), hasCode("missing_file"));
    await assert.rejects(() => readFile(`${folder}/none`), hasCode("missing_file"));
    await assert.rejects(() => listFolder(`${folder}/none`), hasCode("missing_file"));
    await assert.rejects(() => realPath(`${folder}/none`), hasCode("missing_file"));
    await writeFile(`${folder}/x`, Uint8Array.of(0xff));
    await assert.rejects(() => readTextFile(`${folder}/x`), hasCode("unsupported_file"));
    await assert.rejects(() => readFile(`${folder}/x`, 0), hasCode("unsupported_file"));
    assert.equal((await readFile(`${folder}/x`, 1)).byteLength, 1);
    assert.deepEqual(await statPath(`${folder}/x`), { kind: "file", size: 1 });
    assert.equal((await statPath(folder))?.kind, "folder");
    assert.equal(await statPath(`${folder}/none`), undefined);
    assert.equal(await statPath(`${folder}/x/below`), undefined);
  });
});

test("folders are made, listed, renamed and removed; links lead to their files", async () => {
  await inFolder(async (folder) => {
    await makeFolder(`${folder}/a/b`);
    await makeFolder(`${folder}/a/b`);
    for (const name of ["z", "B", "a"]) await writeFile(`${folder}/a/b/${name}`, name);
    assert.deepEqual(await listFolder(`${folder}/a/b`), ["B", "a", "z"]);
    await linkFile("b/z", `${folder}/a/link`);
    await linkFile("b/z", `${folder}/a/link`);
    assert.equal(await readTextFile(`${folder}/a/link`), "z");
    assert.equal(await realPath(`${folder}/a/link`), await realPath(`${folder}/a/b/z`));
    await renamePath(`${folder}/a/b/z`, `${folder}/a/b/y`);
    await assert.rejects(
      () => renamePath(`${folder}/a/b/z`, `${folder}/q`),
      hasCode("write_failed"),
    );
    await symlink(`${folder}/a/b`, `${folder}/other`);
    await remove(`${folder}/a`);
    await remove(`${folder}/a`);
    assert.deepEqual(await listFolder(folder), ["other"]);
    await writeFile(`${folder}/file`, "");
    await assert.rejects(() => makeFolder(`${folder}/file/below`), hasCode("write_failed"));
    await mkdir(`${folder}/again`);
  });
});

test("paths are put together and taken apart", () => {
  assert.equal(joinPath("a", "b", "c"), "a/b/c");
  assert.equal(joinPath("a/", "/b"), "a/b");
  assert.equal(joinPath("/", "b"), "/b");
  assert.equal(joinPath("", "b"), "b");
  assert.deepEqual(["a/b", "/b", "b", "a\\b"].map(folderOf), ["a", "/", ".", "a"]);
  assert.deepEqual(["a/b", "/b", "b", "a\\b"].map(nameOf), ["b", "b", "b", "b"]);
});

test("stream hashes are the standard ones", () => {
  const abc = new TextEncoder().encode("abc");
  const digestOf = (algorithm: "sha1" | "sha256") => {
    const hash = createStreamHash(algorithm);
    for (const byte of abc) hash.update(Uint8Array.of(byte));
    return hash.digest();
  };
  // The examples of FIPS 180-4.
  assert.equal(digestOf("sha1"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  assert.equal(
    digestOf("sha256"),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
});

test("a worker answers, tells its errors, and ends", async () => {
  const worker = spawnWorker(new URL("./echo_worker.ts", import.meta.url), "echo");
  const answer = new Promise((resolve) => worker.onMessage(resolve));
  worker.post(42);
  assert.deepEqual(await answer, { echo: 42 });
  const failure = new Promise<HalftoneError>((resolve) => worker.onError(resolve));
  worker.post("throw");
  const error = await failure;
  assert.equal(error.code, "backend_failed");
  assert.match(error.message, /as told/);
  worker.terminate();
});

test("modules import without a process, as in a browser, and fail only on use", () => {
  const files = ["files", "atomic_file", "system", "workers", "hash", "node", "byte_source"];
  const imports = files.map((name) =>
    new URL(`../../src/runtime/${name}.ts`, import.meta.url).href
  );
  const script = `
    const { process } = globalThis;
    const print = console.log;
    delete globalThis.process;
    const modules = await Promise.all(${JSON.stringify(imports)}.map((url) => import(url)));
    const all = Object.assign({}, ...modules);
    const code = await all.statPath("/").then(() => "none", (error) => error.code);
    print(JSON.stringify([code, all.commandLineArguments(), all.homeFolder() ?? null]));
  `;
  const evaluate = runtimeName() === "deno" ? ["eval", "--ext=ts", script] : ["-e", script];
  const output = execFileSync(process.execPath, evaluate, { encoding: "utf8" });
  assert.deepEqual(JSON.parse(output), ["unsupported", [], null]);
});

test("built-in modules are the real ones", () => {
  assert.equal(builtin("node:os").totalmem(), os.totalmem());
});
