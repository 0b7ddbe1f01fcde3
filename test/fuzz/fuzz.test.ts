/** A short run of every fuzzer, and every input that once broke something. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { restoreConstructors } from "./allocation_limit.ts";
import { readCorpus } from "./corpus.ts";
import { fuzz } from "./run.ts";
import { observe } from "./target.ts";
import { fuzzTargets } from "./targets/mod.ts";

const targets = await fuzzTargets();
const EXECUTIONS = 150;

after(restoreConstructors);

for (const target of targets) {
  test(`fuzzing ${target.name} gives typed errors only, quickly, in little memory`, async () => {
    const { accepted, executions, failures } = await fuzz(
      target,
      Math.ceil(EXECUTIONS / (target.slowness ?? 1)),
      1,
    );
    const told = failures.map(({ seed, error }) => `seed ${seed}: ${error}`);
    assert.deepEqual(told, []);
    // A fuzzer whose inputs are all right, or all wrong at the first glance, tests nothing.
    assert.ok(accepted > 10 && accepted < executions, `${accepted} of ${executions} read`);
  });
}

test("inputs that once broke something are read or refused now", async () => {
  for (const { target: name, seed, input } of readCorpus()) {
    const target = targets.find((candidate) => candidate.name === name);
    assert.ok(target, `no target ${name}`);
    await assert.doesNotReject(() => observe(target, input), `${name}, seed ${seed}`);
  }
});

test("the limit of allocations sees what it must see", async () => {
  const greedy = (run: () => unknown) =>
    observe({ name: "greedy", make: () => null, size: () => 0, run }, null);
  const limit = 64 * 2 ** 20;
  for (
    const run of [
      () => new Uint8Array(limit + 1),
      () => new ArrayBuffer(limit + 1),
      () => new Float64Array(limit / 8 + 1),
      () => Array.from({ length: limit / 8 + 1 }),
      () => [new Uint8Array(limit / 2), new Uint16Array(limit / 4 + 1)],
      () => new Uint8Array({ length: limit + 1 }),
    ]
  ) await assert.rejects(() => greedy(run), /AllocationError/, run.toString());
  assert.equal(await greedy(() => new Uint8Array(limit)), true);
});
