import assert from "node:assert/strict";
import { test } from "node:test";
import * as halftone from "../../mod.ts";

const MODEL = new URL("../../models/demo", import.meta.url).pathname;

test("the public surface has what the documentation uses", () => {
  const names = [
    "BitsAndBytesConfig",
    "FluxPipeline",
    "HalftoneError",
    "HostTensor",
    "JsonNumber",
    "PipelineImage",
    "PipelineQuantizationConfig",
    "TorchGenerator",
    "openBackend",
  ];
  const missing = names.filter((name) => !(name in halftone));
  assert.deepEqual(missing, []);
});

test("the demo model draws through the public surface, quantized and on a shared backend", async () => {
  const backend = await halftone.openBackend({ backend: "wasm", threads: 1 });
  const quantizationConfig = new halftone.PipelineQuantizationConfig({
    quantMapping: {
      transformer: new halftone.BitsAndBytesConfig({
        loadIn4bit: true,
        bnb4bitQuantType: "nf4",
      }),
    },
  });
  const dense = await halftone.FluxPipeline.fromPretrained(MODEL, { backend });
  const quantized = await halftone.FluxPipeline.fromPretrained(MODEL, {
    backend,
    quantizationConfig,
  });
  const call = { prompt: "a star", seed: 0, numInferenceSteps: 2, maxSequenceLength: 32 };
  const [before, after] = [await dense.generate(call), await quantized.generate(call)];
  assert.deepEqual([before.width, before.height], [128, 128]);
  assert.notDeepEqual(after.images[0].pixels, before.images[0].pixels);
  assert.ok(after.memory.stored < before.memory.stored / 2);
  await dense.dispose();
  await quantized.dispose();
  assert.equal(backend.memory().weights, 0);
  await backend.close();
  await assert.rejects(
    halftone.FluxPipeline.fromPretrained(MODEL, { backend }),
    (error) => error instanceof halftone.HalftoneError && error.code === "closed",
  );
});
