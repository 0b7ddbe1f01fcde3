/** The promises of a backend beside its numbers, on the wasm backend. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { runCase } from "./conformance/cases.ts";
import { registerGuards } from "./conformance/guards.ts";
import { compileNetwork, makeNetwork } from "./conformance/network.ts";
import { FAMILIES } from "./conformance/suite.ts";

registerGuards({
  name: "wasm, strict, 2 threads",
  create: () => createWasmBackend({ threads: 2, strict: true }),
});
registerGuards({
  name: "wasm, 1 thread",
  create: () => createWasmBackend({ threads: 1 }),
});
registerGuards({
  name: "wasm, without workers",
  create: () => createWasmBackend({ inline: true }),
});

for (const strict of [true, false]) {
  const build = strict ? "plain" : "relaxed";
  test(`one, two and three threads give the same bytes with ${build} SIMD`, async () => {
    const backends = await Promise.all(
      [1, 2, 3].map((threads) => createWasmBackend({ threads, strict })),
    );
    try {
      const different: string[] = [];
      for (const testCase of Object.values(FAMILIES).flatMap((cases) => cases())) {
        const results: Uint8Array[] = [];
        for (const backend of backends) results.push((await runCase(backend, testCase)).bytes);
        if (!results.every((bytes) => sameBytes(bytes, results[0]))) {
          different.push(`${testCase.op}: ${testCase.name}`);
        }
      }
      assert.deepEqual(different, []);
    } finally {
      for (const backend of backends) await backend.close();
    }
  });
}

test("a network gives the same bytes with workers and without", async () => {
  const network = makeNetwork({ tokens: 64, width: 128, heads: 4, blocks: 2 });
  const pictures: Uint8Array[] = [];
  for (const options of [{ threads: 1 }, { threads: 2 }, { threads: 3 }, { inline: true }]) {
    const backend = await createWasmBackend({ ...options, strict: true });
    const { program } = await compileNetwork(backend, network);
    await program.run();
    pictures.push(program.read("picture").bytes);
    await backend.close();
  }
  for (const picture of pictures.slice(1)) assert.deepEqual(picture, pictures[0]);
});

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
