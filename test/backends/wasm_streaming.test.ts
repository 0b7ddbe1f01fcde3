/** Weights that do not fit stream through two slots: the whole suite so, and the promises about it. */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import type { WeightSource } from "../../src/backends/backend.ts";
import type { Plan, PlanWeight } from "../../src/plan/plan.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { registerConformance } from "./conformance/register.ts";
import { registerGuards } from "./conformance/guards.ts";
import { compileNetwork, makeNetwork } from "./conformance/network.ts";

/** Sixteen weights of 4 MiB. */
const BIG_WEIGHTS = Array.from({ length: 16 }, (_, index): PlanWeight => ({
  name: `${index}`,
  shape: [1024, 1024],
  format: { kind: "dense", dtype: "float32" },
  arrangement: "rows",
  bytes: 4 * 2 ** 20,
}));
const BIG_BYTES = BIG_WEIGHTS.reduce((sum, { bytes }) => sum + bytes, 0);
const BIG_TENSOR = HostTensor.fromFloat32(new Float32Array(2 ** 20).fill(1), [1024, 1024]);
const BIG_SOURCE: WeightSource = {
  read: () => Promise.resolve({ kind: "dense", tensor: BIG_TENSOR }),
};

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

for (const inline of [false, true]) {
  const where = inline ? "without workers" : "with workers";
  test(`weights outside give their memory back when they are released, ${where}`, async () => {
    const backend = await createWasmBackend({ threads: 1, inline, residentWeightBytes: 1 });
    try {
      const load = async () => await backend.loadWeights(BIG_WEIGHTS, BIG_SOURCE);
      await (await load()).release(); // so that what loading takes once is there
      const before = process.memoryUsage().rss;
      for (let round = 0; round < 8; round++) {
        const set = await load();
        assert.equal(backend.memory().weights, BIG_BYTES);
        await set.release();
        assert.equal(backend.memory().weights, 0);
        const grown = process.memoryUsage().rss - before;
        assert.ok(grown < 2 * BIG_BYTES, `${grown} bytes more after round ${round}`);
      }
    } finally {
      await backend.close();
    }
  });
}
