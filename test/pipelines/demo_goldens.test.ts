import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { parseSafetensors } from "../../src/io/safetensors.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";
import { psnr, relativeError } from "./goldens.ts";

const MODEL = new URL("../../models/demo", import.meta.url).pathname;
const GOLDENS = new URL("../goldens/demo/", import.meta.url).pathname;

interface DemoCall {
  prompt: string;
  num_inference_steps: number;
  width: number;
  height: number;
  seed: number;
  max_sequence_length: number;
}

const calls: DemoCall[] = JSON.parse(readFileSync(`${GOLDENS}demo.json`, "utf8"));
const tensors: ReadonlyMap<string, HostTensor> = parseSafetensors(
  new Uint8Array(readFileSync(`${GOLDENS}demo.safetensors`)),
);

const pipes = new Map<string, Promise<FluxPipeline>>();

/** One pipeline of each backend for all prompts. */
function pipeline(backend: "reference" | "wasm"): Promise<FluxPipeline> {
  const opened = pipes.get(backend) ?? FluxPipeline.fromPretrained(MODEL, { backend });
  pipes.set(backend, opened);
  return opened;
}

after(async () => {
  for (const opened of pipes.values()) await (await opened).dispose();
});

/** The reference backend is slow: some seconds a picture. */
const TIMEOUT = { timeout: 300_000 };

for (const backend of ["reference", "wasm"] as const) {
  for (const [index, call] of calls.entries()) {
    const steps = call.num_inference_steps;
    if (backend === "reference" && steps > 4) continue; // half a minute of the same
    test(
      `"${call.prompt}" in ${steps} steps on ${backend} is what Diffusers draws`,
      TIMEOUT,
      async () => {
        const pipe = await pipeline(backend);
        const output = await pipe.generate({
          prompt: call.prompt,
          numInferenceSteps: steps,
          width: call.width,
          height: call.height,
          seed: call.seed,
          maxSequenceLength: call.max_sequence_length,
        });
        const latents = tensors.get(`${index}.latents`)!.toFloat32();
        const error = relativeError(output.latents.toFloat32(), latents);
        assert.ok(error < 1e-4, `latents differ by ${error}`);
        const expected = Float32Array.from(tensors.get(`${index}.image`)!.bytes, (x) => x / 255);
        const decibels = psnr(output.images[0], expected);
        assert.ok(decibels > 50, `PSNR ${decibels}`);
      },
    );
  }
}

test("the demo goldens are eight prompts and more", () => {
  assert.ok(new Set(calls.map(({ prompt }) => prompt)).size >= 8);
});
