/**
 * Times a whole picture with halftone; prints one JSON object. The counterpart of
 * peers/diffusers_picture.py, with the same options.
 *
 *     deno run -A bench/halftone_picture.ts FOLDER [--width 128] [--height 128] [--steps 4]
 *         [--seed 0] [--threads 1] [--repeats 3] [--max-sequence-length 32] [--prompt TEXT]
 *         [--backend wasm] [--dtype float32] [--quantize METHOD:FORMAT] [--save FILE.png]
 */

import { parseArgs } from "node:util";
import { FluxPipeline } from "../src/pipelines/flux.ts";
import type { WeightDType } from "../src/quantization/weights.ts";
import { parseQuantizeFlags } from "../src/quantization/formats.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prompt: { type: "string", default: "a red star above a blue house on a white background" },
    width: { type: "string", default: "128" },
    height: { type: "string", default: "128" },
    steps: { type: "string", default: "4" },
    seed: { type: "string", default: "0" },
    threads: { type: "string", default: "1" },
    repeats: { type: "string", default: "3" },
    "max-sequence-length": { type: "string", default: "32" },
    backend: { type: "string", default: "wasm" },
    dtype: { type: "string" },
    quantize: { type: "string", multiple: true, default: [] },
    save: { type: "string" },
  },
});

const began = performance.now();
await using pipeline = await FluxPipeline.fromPretrained(positionals[0]!, {
  backend: values.backend as "wasm" | "reference",
  threads: Number(values.threads),
  dtype: values.dtype as WeightDType | undefined,
  quantizationConfig: parseQuantizeFlags(values.quantize),
});
const loadSeconds = (performance.now() - began) / 1000;
const repeats: unknown[] = [];
let peak = 0;
for (let repeat = 0; repeat < Number(values.repeats); repeat++) {
  const started = performance.now();
  const { images, timings, memory } = await pipeline.generate({
    prompt: values.prompt,
    width: Number(values.width),
    height: Number(values.height),
    numInferenceSteps: Number(values.steps),
    seed: Number(values.seed),
    maxSequenceLength: Number(values["max-sequence-length"]),
  });
  const seconds = (performance.now() - started) / 1000;
  const { text, denoise, decode, plan, load } = timings;
  repeats.push({ seconds, text, transformer: denoise, decode, plan, load });
  peak = memory.peak;
  if (values.save !== undefined) await images[0]!.save(values.save);
}
console.log(JSON.stringify({ load_seconds: loadSeconds, repeats, peak_bytes: peak }));
