import assert from "node:assert/strict";
import { test } from "node:test";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions, FluxPipelineOutput } from "../../src/pipelines/flux_options.ts";
import { parseQuantizeFlags } from "../../src/quantization/formats.ts";
import { readGolden } from "./goldens.ts";

const { folder, options } = readGolden("dev");

async function run(opening: FluxPipelineOptions): Promise<FluxPipelineOutput> {
  await using pipe = await FluxPipeline.fromPretrained(folder, { backend: "wasm", ...opening });
  return await pipe.generate({ ...options, numInferenceSteps: 3 });
}

for (const flag of [undefined, "bitsandbytes:nf4", "bitsandbytes:int8"]) {
  const quantizationConfig = flag === undefined ? undefined : parseQuantizeFlags([flag]);
  test(`strict wasm gives the same PNG for 1, 2 and 3 threads (${flag ?? "dense"})`, async () => {
    const [one, two, three] = [
      await run({ strict: true, threads: 1, quantizationConfig }),
      await run({ strict: true, threads: 2, quantizationConfig }),
      await run({ strict: true, threads: 3, quantizationConfig }),
    ];
    assert.deepEqual(two.latents.bytes, one.latents.bytes);
    assert.deepEqual(three.latents.bytes, one.latents.bytes);
    assert.deepEqual(two.images[0].toPng(), one.images[0].toPng());
    assert.deepEqual(three.images[0].toPng(), one.images[0].toPng());
  });

  test(`weights that stream through a small arena give the same picture (${flag ?? "dense"})`, async () => {
    const whole = await run({ strict: true, threads: 2, quantizationConfig });
    const streamed = await run({
      strict: true,
      threads: 2,
      residentWeightBytes: 1 << 16,
      quantizationConfig,
    });
    assert.deepEqual(streamed.latents.bytes, whole.latents.bytes);
  });
}

/** From all weights inside, over some inside and some streamed, to none inside. */
const RESIDENT_BYTES = [undefined, 400_000, 200_000, 100_000, 1 << 16, 0];

for (const keep of [undefined, false]) {
  const kept = keep === false ? "nothing is kept that need not be" : "everything is kept";
  test(`the planned peak of wasm is within 2 % of every run's where ${kept}`, async () => {
    for (const residentWeightBytes of RESIDENT_BYTES) {
      await using pipe = await FluxPipeline.fromPretrained(folder, {
        backend: "wasm",
        threads: 2,
        residentWeightBytes,
        keepTextEncoders: keep,
        keepModulation: keep,
      });
      const { width, height, maxSequenceLength, numInferenceSteps } = options;
      const report = pipe.plan({ width, height, maxSequenceLength, numInferenceSteps });
      for (const time of ["first", "second"]) {
        const { memory } = await pipe.generate(options);
        const ratio = memory.peak / report.memory.peak;
        const label = `${time} run, ${residentWeightBytes} resident: measured / planned = ${ratio}`;
        assert.ok(Math.abs(ratio - 1) < 0.02, label);
      }
    }
  });
}
