/** Calibration by a forward loop; test/goldens/make_calibration_goldens.py made the ranges with ModelOpt. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { NVIDIAModelOptConfig } from "../../src/quantization/modelopt_config.ts";
import { PipelineQuantizationConfig } from "../../src/quantization/pipeline_config.ts";
import { GOLDENS, readGolden } from "../quantization/support.ts";

interface Golden {
  readonly arguments: {
    readonly prompt: string;
    readonly width: number;
    readonly height: number;
    readonly num_inference_steps: number;
    readonly guidance_scale: number;
    readonly max_sequence_length: number;
  };
  readonly seed: number;
  readonly amax: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

const golden = await readGolden<Golden>("modelopt_calibration.json");
const MODEL = `${GOLDENS}pipelines/dev`;

function draw(pipeline: FluxPipeline) {
  const { prompt, width, height, ...call } = golden.arguments;
  return pipeline.generate({
    prompt,
    width,
    height,
    numInferenceSteps: call.num_inference_steps,
    guidanceScale: call.guidance_scale,
    maxSequenceLength: call.max_sequence_length,
    seed: golden.seed,
    outputType: "latent",
  });
}

for (const backend of ["reference", "wasm"] as const) {
  test(`calibration on ${backend} finds the ranges that ModelOpt finds`, async () => {
    const options = { backend, threads: 2, dtype: "float32" } as const;
    const amax = await FluxPipeline.calibrate(MODEL, options, draw);
    for (const [component, expected] of Object.entries(golden.amax)) {
      assert.deepEqual(Object.keys(amax[component]).sort(), Object.keys(expected).sort());
      for (const [module, value] of Object.entries(expected)) {
        const found = amax[component][module];
        assert.ok(
          Math.abs(found - value) <= 1e-4 * value,
          `${component} ${module}: ${found}, not ${value}`,
        );
      }
    }
  });
}

test("a transformer with calibrated FP8 activations draws close to one with float activations", async () => {
  const amax = await FluxPipeline.calibrate(MODEL, { backend: "reference" }, draw);
  const latents = async (config: NVIDIAModelOptConfig) => {
    const quantMapping = { transformer: config };
    const options: FluxPipelineOptions = {
      backend: "reference",
      quantizationConfig: new PipelineQuantizationConfig({ quantMapping }),
    };
    await using pipeline = await FluxPipeline.fromPretrained(MODEL, options);
    return (await draw(pipeline)).latents.toFloat32();
  };
  const exact = await latents(new NVIDIAModelOptConfig({ quantType: "FP8" }));
  const rounded = { quantType: "FP8_FP8", weightOnly: false };
  const found = await latents(
    new NVIDIAModelOptConfig({ ...rounded, inputAmax: amax.transformer }),
  );
  let [error, energy] = [0, 0];
  exact.forEach((value, index) => {
    error += (found[index] - value) ** 2;
    energy += value ** 2;
  });
  const distance = Math.sqrt(error / energy);
  assert.ok(distance > 0 && distance < 0.1, `${distance}`);
});
