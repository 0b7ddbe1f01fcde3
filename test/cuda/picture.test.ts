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

test("the demo picture on cuda is the reference's", { skip }, async () => {
  if (typeof standIn === "string") return;
  const found = await draw(await createCudaBackend(standIn.libraries));
  const expected = await draw(createReferenceBackend());
  let error = 0, size = 0;
  found.latents.forEach((value, index) => {
    error += (value - expected.latents[index]!) ** 2;
    size += expected.latents[index]! ** 2;
  });
  assert.ok(
    size > 0 && Math.sqrt(error / size) < 1e-4,
    `latents off by ${Math.sqrt(error / size)}`,
  );
  // A rounding next to a half may fall to either side.
  found.pixels.forEach((value, index) => {
    assert.ok(Math.abs(value - expected.pixels[index]!) <= 1, `pixel value ${index}`);
  });
});
