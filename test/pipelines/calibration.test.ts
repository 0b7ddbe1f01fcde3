/** Calibration by a forward loop; test/goldens/make_calibration_goldens.py made the ranges with ModelOpt. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { HalftoneError } from "../../src/errors.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { ActivationHistogram } from "../../src/quantization/activation_histogram.ts";
import { NVIDIAModelOptConfig } from "../../src/quantization/modelopt_config.ts";
import { PipelineQuantizationConfig } from "../../src/quantization/pipeline_config.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
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
  readonly amax: Ranges;
  /** What `percentile` is of. */
  readonly percent: number;
  readonly percentile: Ranges;
  /** Of the histograms' bins. */
  readonly width: Ranges;
  readonly histograms: readonly {
    readonly shape: readonly number[];
    readonly scales: readonly number[];
    readonly bins: number;
    readonly amax: readonly (readonly [percent: number, amax: number])[];
  }[];
}

type Ranges = Readonly<Record<string, Readonly<Record<string, number>>>>;

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

for (const histogramBytes of [undefined, 8192]) {
  const kept = histogramBytes ? `${histogramBytes} bytes of inputs at once` : "all inputs at once";
  test(`calibration by percentiles finds the ranges that ModelOpt finds, with ${kept}`, async () => {
    const options = { backend: "wasm", threads: 2, dtype: "float32" } as const;
    let runs = 0;
    const loop = (pipeline: FluxPipeline) => (runs++, draw(pipeline));
    const { percent: percentile } = golden;
    const how = { method: "percentile", percentile, histogramBytes } as const;
    const amax = await FluxPipeline.calibrate(MODEL, options, loop, how);
    let [count, moved] = [0, 0];
    for (const [component, expected] of Object.entries(golden.percentile)) {
      assert.deepEqual(Object.keys(amax[component]).sort(), Object.keys(expected).sort());
      for (const [module, value] of Object.entries(expected)) {
        const distance = Math.abs(amax[component][module] - value);
        count++;
        if (distance <= 1e-4 * value) continue;
        // A value at the end of a bin may fall into the next one.
        moved++;
        const width = golden.width[component][module];
        assert.ok(distance < 1.01 * width, `${component} ${module}: ${distance} from ${value}`);
      }
    }
    assert.ok(moved <= count / 20, `${moved} of ${count} ranges lie one bin away`);
    assert.ok(histogramBytes ? runs > 5 : runs === 2, `${runs} runs of the forward loop`);
  });
}

test("a histogram has the bins and percentiles of ModelOpt's", () => {
  for (const { shape, scales, bins, amax } of golden.histograms) {
    const histogram = new ActivationHistogram();
    scales.forEach((scale, seed) => {
      const drawn = new TorchGenerator(seed).randn(shape).toFloat32();
      histogram.collect(drawn.map((value) => value * Math.fround(scale)));
    });
    assert.equal(histogram.bins, bins);
    for (const [percent, expected] of amax) {
      const found = histogram.percentile(percent);
      // torch spaces the ends of bins in several ways, which round otherwise.
      const close = Math.abs(found - expected) <= 3e-7 * expected;
      assert.ok(close, `${percent} % of [${shape}], ${scales}: ${found}, not ${expected}`);
    }
  }
});

test("a histogram stays small whatever comes", () => {
  const histogram = new ActivationHistogram();
  histogram.collect(new Float32Array(100));
  histogram.collect(Float32Array.from({ length: 1000 }, (_, index) => 1e-9 * index));
  const spread = Float32Array.from({ length: 8900 }, (_, index) => index + 1);
  for (const reach of [1, 1e4, 1e30]) histogram.collect(spread.map((value) => value * reach));
  assert.ok(histogram.bins <= 2 ** 15, `${histogram.bins}`);
  const found = histogram.percentile(99); // of 27,800 values; the largest 8,900 are multiples of 1e30
  assert.ok(Math.abs(found / 8622e30 - 1) < 1e-3, `${found}`);
  const nothing = new ActivationHistogram();
  nothing.collect(new Float32Array(10));
  assert.equal(nothing.percentile(99.99), 0);
});

test("a calibration that cannot be meant is refused before anything is opened", async () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ method: "mse" }, "method"],
    [{ method: "percentile", percentile: 0 }, "percentile"],
    [{ method: "percentile", percentile: 101 }, "percentile"],
    [{ method: "percentile", histogramBytes: -1 }, "histogramBytes"],
  ];
  for (const [options, field] of cases) {
    const calibrating = FluxPipeline.calibrate("no such model", {}, draw, options as object);
    await assert.rejects(calibrating, (error: HalftoneError) => {
      return error.code === "invalid_argument" && error.detail.field === field;
    });
  }
});

test("a forward loop that runs a layer the first time only is refused", async () => {
  let runs = 0;
  const loop = async (pipeline: FluxPipeline) => void (runs++ === 0 && await draw(pipeline));
  const calibrating = FluxPipeline.calibrate(MODEL, { backend: "wasm" }, loop, {
    method: "percentile",
  });
  await assert.rejects(calibrating, /the same calls every time/);
});

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
