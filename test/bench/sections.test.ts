/** The sections of the benchmarks that make their own models run to their end, at tiny sizes. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { SECTIONS } from "../../bench/suite/sections.ts";

/** The peer that no package has. */
const BUILT_BY_HAND = "stable-diffusion.cpp";

for (const name of ["block-pair", "denoise", "loading", "flux-schnell"]) {
  test(`the section ${name} measures something at tiny sizes`, async () => {
    const models = mkdtempSync(join(tmpdir(), "halftone-sections-"));
    try {
      const options = { rounds: 1, python: "python3", native: "sd-cli", models, tiny: true };
      const { comparisons = [], figures = [], missing = [] } = await SECTIONS[name]!.run(options);
      const absent = [...missing, ...comparisons.flatMap((one) => one.missing)];
      assert.deepEqual(absent.filter(({ name }) => name !== BUILT_BY_HAND), []);
      const times = comparisons.flatMap(({ contenders }) => contenders.map(({ wall }) => wall));
      const numbers = [...times.map(({ median }) => median), ...figures.map(({ value }) => value)];
      assert.ok(numbers.length > 0);
      for (const number of numbers) assert.ok(number > 0, `${number}`);
    } finally {
      rmSync(models, { recursive: true });
    }
  });
}
