/**
 * The same bytes on every engine and machine, where that is promised: the reference backend, and wasm
 * without relaxed SIMD. The hashes of one network's outputs stand in same_bytes.json, whichever engine
 * runs the tests. A change to a kernel's arithmetic changes them: `UPDATE_HASHES=1` writes them anew.
 */

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { env } from "node:process";
import { test } from "node:test";
import type { Backend } from "../../src/backends/backend.ts";
import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { compileNetwork, makeNetwork } from "./conformance/network.ts";

const RECORD = new URL("./same_bytes.json", import.meta.url);

const BACKENDS: Readonly<Record<string, () => Backend | Promise<Backend>>> = {
  "reference": () => createReferenceBackend(),
  "reference without fused ops": () => createReferenceBackend({ fused: false }),
  "wasm, strict": () => createWasmBackend({ threads: 2, strict: true }),
};

/** SHA-256 of both outputs of a network. */
async function outputHash(backend: Backend): Promise<string> {
  const { program } = await compileNetwork(
    backend,
    makeNetwork({ tokens: 20, width: 96, heads: 3, blocks: 2 }),
  );
  await program.run();
  const outputs = ["tokens", "picture"].map((name) => program.read(name).bytes);
  const bytes = new Uint8Array(outputs.reduce((sum, output) => sum + output.length, 0));
  bytes.set(outputs[0]);
  bytes.set(outputs[1], outputs[0].length);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

for (const [name, create] of Object.entries(BACKENDS)) {
  test(`${name}: a network gives the recorded bytes on every engine`, async () => {
    const backend = await create();
    try {
      const recorded: Record<string, string> = JSON.parse(readFileSync(RECORD, "utf8"));
      const found = await outputHash(backend);
      if (env.UPDATE_HASHES) {
        writeFileSync(RECORD, JSON.stringify({ ...recorded, [name]: found }, null, 2) + "\n");
      } else assert.equal(found, recorded[name]);
    } finally {
      await backend.close();
    }
  });
}
