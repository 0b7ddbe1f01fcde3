import assert from "node:assert/strict";
import { test } from "node:test";
import { AutoencoderKL } from "../../src/models/autoencoder_kl.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import { decodeTiled } from "../../src/pipelines/vae_tiling.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { GOLDENS, loadJson, loadTensors, relativeError, runModel } from "../models/run_model.ts";
import { readGolden } from "./goldens.ts";

const FOLDER = `${GOLDENS}pipelines/flux_vae/vae`;
const vae = new AutoencoderKL(loadJson(`${FOLDER}/config.json`));
const weights = loadTensors(`${FOLDER}/diffusion_pytorch_model.safetensors`);

/** [1, channels, height, width] -> [height, width, channels]. */
function channelsLast(tensor: HostTensor): HostTensor {
  const [, channels, height, width] = tensor.shape;
  const from = tensor.toFloat32();
  const to = from.map((_, i) => from[(i % channels) * height * width + Math.floor(i / channels)]);
  return HostTensor.fromFloat32(to, [height, width, channels]);
}

test("a picture decoded by tiles is what Diffusers decodes by tiles", async () => {
  const golden = loadTensors(`${GOLDENS}components/vae.safetensors`);
  const latents = channelsLast(golden.get("flux_vae.tiled.latents")!);
  const sides: string[] = [];
  const decoded = await decodeTiled(latents, vae, async (tile) => {
    const [height, width] = tile.shape;
    sides.push(`${height}x${width}`);
    const capture = { height, width };
    const outputs = await runModel(
      weights,
      (graph) => vae.captureDecode(graph, capture),
      { latents: tile },
    );
    return outputs.image;
  });
  const expected = channelsLast(golden.get("flux_vae.tiled.decoded")!);
  assert.deepEqual(decoded.shape, expected.shape);
  assert.ok(relativeError(decoded.toFloat32(), expected.toFloat32()) < 1e-5);
  assert.deepEqual(sides, ["4x4", "4x4", "4x1", "3x4", "3x4", "3x1"]);
});

test("tiling changes pictures above the autoencoder's own size only, and needs less memory", async () => {
  const { folder, options } = readGolden("flux_vae");
  const call = { ...options, numInferenceSteps: 1 };
  await using whole = await FluxPipeline.fromPretrained(folder, { backend: "reference" });
  await using tiled = await FluxPipeline.fromPretrained(folder, {
    backend: "reference",
    vaeTiling: true,
  });
  const small = { ...call, width: 32, height: 32 };
  const [a, b] = [await whole.generate(small), await tiled.generate(small)];
  assert.deepEqual(a.images[0].toPng(), b.images[0].toPng());
  const [large, parts] = [await whole.generate(call), await tiled.generate(call)];
  assert.deepEqual([parts.width, parts.height], [large.width, large.height]);
  assert.notDeepEqual(parts.images[0].pixels, large.images[0].pixels);
  assert.ok(parts.memory.peak < large.memory.peak);
  const { width, height, maxSequenceLength } = options;
  const sizes = { width, height, maxSequenceLength, numInferenceSteps: 1 };
  assert.equal(parts.memory.peak, tiled.plan(sizes).memory.peak);
  assert.equal(parts.planHash, tiled.plan(sizes).planHash);
});
