/** Weights that are begun before they are asked for: in their order, in memory of their own, with their own errors. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { StoredWeight, WeightSource } from "../../src/backends/backend.ts";
import { ReadAhead } from "../../src/backends/read_ahead.ts";
import type { PlanWeight } from "../../src/plan/plan.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import type { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";

const BYTES = 64;

function weightOf(name: string): PlanWeight {
  const format = { kind: "dense", dtype: "int8" } as const;
  return { name, shape: [BYTES], format, arrangement: "rows", bytes: BYTES };
}

/** Fills a weight's bytes with its number, a while after it was asked for. */
class NumberedSource implements WeightSource {
  readonly log: string[] = [];
  readonly #made: RegExp;

  constructor(made: RegExp) {
    this.#made = made;
  }

  async read({ name }: PlanWeight, scratch?: ScratchBytes): Promise<StoredWeight> {
    this.log.push(`begin ${name}`);
    const bytes = scratch!.take(BYTES);
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (name === "w3 broken") throw new Error(name);
    this.log.push(`end ${name}`);
    return { kind: "dense", tensor: new HostTensor("int8", [BYTES], bytes.fill(Number(name[1]))) };
  }

  stream({ name }: PlanWeight) {
    this.log.push(`stream ${name}`);
    return Promise.resolve(name.includes("streamed") ? { kind: "dense" } as const : null);
  }

  isMade({ name }: PlanWeight): boolean {
    return this.#made.test(name);
  }
}

/** Reads weights as backends do, and looks at each for a while. */
async function load(source: NumberedSource, names: readonly string[]): Promise<void> {
  const weights = names.map(weightOf);
  const ahead = new ReadAhead(source, weights);
  try {
    for (const weight of weights) {
      const rest = await ahead.stream(weight, () => {});
      if (rest) continue;
      const stored = await ahead.read(weight);
      assert.ok(stored.kind === "dense");
      for (let look = 0; look < 3; look++) {
        assert.ok(
          stored.tensor.bytes.every((byte) => byte === Number(weight.name[1])),
          weight.name,
        );
        await new Promise((resolve) => setTimeout(resolve, 4));
      }
      source.log.push(`used ${weight.name}`);
    }
  } finally {
    await ahead.settle();
  }
}

test("a weight is made while the one before is used, and none before its turn", async () => {
  const source = new NumberedSource(/./);
  await load(source, ["w0", "w1", "w2"]);
  const begun = (name: string) => source.log.indexOf(`begin ${name}`);
  const used = (name: string) => source.log.indexOf(`used ${name}`);
  assert.ok(begun("w1") < used("w0") && begun("w2") < used("w1") && begun("w2") > used("w0"));
  assert.equal(source.log.filter((entry) => entry.startsWith("begin")).length, 3);
});

test("what nobody has to make is not begun early", async () => {
  const source = new NumberedSource(/w2/);
  await load(source, ["w0", "w1 streamed", "w2"]);
  assert.deepEqual(source.log, [
    ...["stream w0", "begin w0", "end w0", "used w0"],
    ...["stream w1 streamed", "stream w2", "begin w2", "end w2", "used w2"],
  ]);
});

test("a weight that fails early is told in its turn, and what was begun ends before loading does", async () => {
  const source = new NumberedSource(/./);
  await assert.rejects(load(source, ["w1", "w2", "w3 broken", "w4"]), /^Error: w3 broken$/);
  assert.ok(source.log.includes("used w2"));
  assert.equal(source.log.at(-1), "end w4");
});
