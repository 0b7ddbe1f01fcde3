/** Weights that do not fit stream through two slots: the whole suite so, and the promises about it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Plan } from "../../src/plan/plan.ts";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { registerConformance } from "./conformance/register.ts";
import { registerGuards } from "./conformance/guards.ts";
import { compileNetwork, makeNetwork } from "./conformance/network.ts";

// With room for one byte nothing is resident: every segment is a single step.
registerConformance({
  name: "wasm, 2 threads, all weights streamed",
  create: () => createWasmBackend({ threads: 2, strict: true, residentWeightBytes: 1 }),
});
registerGuards({
  name: "wasm, 2 threads, all weights streamed",
  create: () => createWasmBackend({ threads: 2, strict: true, residentWeightBytes: 1 }),
});
registerConformance({
  name: "wasm, without workers, all weights streamed",
  create: () => createWasmBackend({ inline: true, strict: true, residentWeightBytes: 1 }),
});

test("streamed weights give the same bytes as resident ones, in slots of any size", async () => {
  const network = makeNetwork({ tokens: 16, width: 128, heads: 4, blocks: 3 });
  const pictures: Uint8Array[] = [];
  for (const residentWeightBytes of [2 ** 30, 1, 100_000, 300_000, 700_000]) {
    const backend = await createWasmBackend({ threads: 2, strict: true, residentWeightBytes });
    try {
      const { program } = await compileNetwork(backend, network);
      for (let run = 0; run < 3; run++) await program.run();
      pictures.push(program.read("picture").bytes);
    } finally {
      await backend.close();
    }
  }
  for (const picture of pictures.slice(1)) assert.deepEqual(picture, pictures[0]);
});

test("a streamed plan holds two slots inside, not its weights, and peaks as planned", async () => {
  const network = makeNetwork({ tokens: 16, width: 256, heads: 4, blocks: 4 });
  const residentWeightBytes = 2_200_000;
  const backend = await createWasmBackend({ threads: 2, residentWeightBytes });
  try {
    const { plan, program } = await compileNetwork(backend, network);
    assert.ok(plan.weightBytes > 2 * residentWeightBytes);
    await program.run();
    const planned = (backend.weightBytes?.(plan) ?? plan.weightBytes) + plan.arenaBytes +
      backend.scratchBytes(plan);
    const { peak } = backend.memory();
    assert.ok(Math.abs(peak - planned) <= 0.02 * planned, `planned ${planned}, measured ${peak}`);
    const slots = backend.scratchBytes(plan) - await scratchOfResident(plan);
    assert.ok(slots <= 1.01 * residentWeightBytes, `${slots} bytes of slots`);
  } finally {
    await backend.close();
  }
});

/** What the same plan needs beside weights and arena when its weights are resident. */
async function scratchOfResident(plan: Plan): Promise<number> {
  const backend = await createWasmBackend({ threads: 2 });
  try {
    return backend.scratchBytes(plan);
  } finally {
    await backend.close();
  }
}
