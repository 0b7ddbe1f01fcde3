/** Which backend "auto" takes, and what it says about it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type BackendName, chooseBackend, createBackend } from "../../src/backends/select.ts";
import { HalftoneError } from "../../src/errors.ts";

test("the reference backend is made when it is asked for", async () => {
  const { backend, reason } = await chooseBackend({ backend: "reference" });
  assert.equal(backend.name, "reference");
  assert.match(reason, /asked for/);
  await backend.close();
});

test("the wasm backend is made when it is asked for, with the threads asked for", async () => {
  const backend = await createBackend({ backend: "wasm", threads: 2, strict: true });
  assert.equal(backend.name, "wasm");
  assert.equal((backend as unknown as { threads: number }).threads, 2);
  assert.equal((backend as unknown as { build: string }).build, "plain");
  await backend.close();
});

/** A driver that is not there, so that these tests choose alike on machines with a GPU. */
const NO_DRIVER = { driverLibrary: "libhalftone_missing.so" };

test("auto takes wasm where cuda does not start, and says why", async () => {
  const { backend, reason } = await chooseBackend({ threads: 1, ...NO_DRIVER });
  assert.equal(backend.name, "wasm");
  assert.match(reason, /^wasm: the fastest that starts here\. Cannot .*libhalftone_missing/);
  await backend.close();
});

test("auto takes the reference where wasm does not start, and says why", async () => {
  await withoutCompiler(async () => {
    const { backend, reason } = await chooseBackend({ threads: 1, ...NO_DRIVER });
    assert.equal(backend.name, "reference");
    assert.match(reason, /^reference: wasm does not start here \(Cannot compile/);
    await backend.close();
  });
});

test("asking for wasm where it does not start is an error", async () => {
  await withoutCompiler(async () => {
    await assert.rejects(createBackend({ backend: "wasm" }), hasCode("backend_unavailable"));
  });
});

test("a wrong option is an error, not a reason to take another backend", async () => {
  for (const threads of [0, -1, 1.5, NaN, 129]) {
    await assert.rejects(createBackend({ threads, ...NO_DRIVER }), hasCode("invalid_argument"));
  }
  for (const residentWeightBytes of [-1, 1.5, NaN]) {
    await assert.rejects(createBackend({ residentWeightBytes }), hasCode("invalid_argument"));
  }
  const backend = "quantum" as BackendName;
  await assert.rejects(createBackend({ backend }), hasCode("invalid_argument"));
});

/** Runs `body` on an engine whose WebAssembly compiles nothing. */
async function withoutCompiler(body: () => Promise<void>): Promise<void> {
  const { compile } = WebAssembly;
  WebAssembly.compile = () => Promise.reject(new WebAssembly.CompileError("no SIMD"));
  try {
    await body();
  } finally {
    WebAssembly.compile = compile;
  }
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof HalftoneError && error.code === code;
}
