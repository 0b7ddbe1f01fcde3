/** The demo picture on the cuda backend over the stand-in driver, beside the reference one. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import type { Backend } from "../../src/backends/backend.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import { openStandIn } from "./stand_in.ts";

const MODEL = fileURLToPath(new URL("../../models/demo", import.meta.url));
const standIn = openStandIn("picture");
const skip = typeof standIn === "string" ? standIn : false;
if (skip) console.log(`cuda: the demo picture is skipped: ${skip}`);

/** Latents after two steps, and the picture's pixels. */
async function draw(backend: Backend) {
  try {
    await using pipe = await FluxPipeline.fromPretrained(MODEL, { backend });
    let latents = new Float32Array();
    const { images } = await pipe.generate({
      prompt: "a red star above a blue house",
      width: 32,
      height: 32,
      numInferenceSteps: 2,
      maxSequenceLength: 16,
      seed: 0,
      outputType: "pixels",
      onStep: (event) => void (latents = event.latents.toFloat32().slice()),
    });
    return { latents, pixels: images[0]!.pixels };
  } finally {
    await backend.close();
  }
}

/** How far latents, relative, and values of pixels may be off. */
const BUDGETS = {
  float32: { latents: 1e-4, pixels: 1 },
  // Operands have 8 bits of significand: about half of its last, in values that are sums of many.
  bfloat16: { latents: 2 ** -9, pixels: 4 },
} as const;

for (const matmulPrecision of ["float32", "bfloat16"] as const) {
  test(`the demo picture on cuda in ${matmulPrecision} is the reference's`, { skip }, async () => {
    if (typeof standIn === "string") return;
    const before = standIn.count("operations");
    const found = await draw(
      await createCudaBackend({ ...standIn.libraries, matmulPrecision }),
    );
    assert.ok(standIn.count("operations") > before);
    const expected = await draw(createReferenceBackend());
    let error = 0, size = 0;
    found.latents.forEach((value, index) => {
      error += (value - expected.latents[index]!) ** 2;
      size += expected.latents[index]! ** 2;
    });
    const { latents, pixels } = BUDGETS[matmulPrecision];
    const off = Math.sqrt(error / size);
    assert.ok(size > 0 && off < latents, `latents off by ${off}`);
    // A rounding next to a half may fall to either side.
    const worst = found.pixels.reduce(
      (most, value, index) => Math.max(most, Math.abs(value - expected.pixels[index]!)),
      0,
    );
    assert.ok(worst <= pixels, `a pixel off by ${worst}`);
  });
}
