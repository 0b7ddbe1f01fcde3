/** FLUX.1's picture decoder with random weights, on any backend. */

import type { Backend, Program } from "../src/backends/backend.ts";
import type { Config } from "../src/io/config.ts";
import { AutoencoderKL } from "../src/models/autoencoder_kl.ts";
import { Graph } from "../src/ops/graph.ts";
import { buildPlan } from "../src/plan/build.ts";
import type { PlanWeight } from "../src/plan/plan.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";
import { elementCount } from "../src/tensor/shape.ts";
import { denseInfo, ShapeRecorder } from "./random_component.ts";
import { evenFloats } from "./random_values.ts";

/** FLUX.1's vae/config.json, as far as it matters here; `width` is the channels of the finest resolution. */
export function decoderConfig(width: number): Config {
  return {
    _class_name: "AutoencoderKL",
    block_out_channels: [1, 2, 4, 4].map((factor) => factor * width),
    down_block_types: Array(4).fill("DownEncoderBlock2D"),
    up_block_types: Array(4).fill("UpDecoderBlock2D"),
    latent_channels: 16,
    layers_per_block: 2,
    norm_num_groups: Math.min(32, width),
    use_quant_conv: false,
    use_post_quant_conv: false,
  };
}

/** A decoder of square pictures, loaded and compiled, with latents in place. */
export async function openDecoder(
  backend: Backend,
  pixels: number,
  width: number,
): Promise<{ program: Program; close(): Promise<void> }> {
  const model = new AutoencoderKL(decoderConfig(width));
  const sizes = { height: pixels / model.scaleFactor, width: pixels / model.scaleFactor };
  const recorder = new ShapeRecorder();
  model.captureDecode(recorder, sizes);
  const graph = new Graph("vae.decode", { lookup: (name) => denseInfo(recorder.shapes.get(name)) });
  model.captureDecode(graph, sizes);
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const weights = await backend.loadWeights(plan.weights, {
    read: (weight) => Promise.resolve({ kind: "dense", tensor: randomWeight(weight) }),
  });
  const program = await backend.compile(plan, weights);
  for (const [name, { shape }] of Object.entries(plan.inputs)) {
    program.write(name, new TorchGenerator(0).randn(shape));
  }
  const close = async () => {
    program.release();
    await weights.release();
  };
  return { program, close };
}

/** Norms that change nothing, biases of zero, and weights that keep the variance. */
function randomWeight({ name, shape, format }: PlanWeight): HostTensor {
  const count = elementCount(shape);
  const reach = Math.sqrt(3 * shape[0]! / count);
  const plain = new Float32Array(count).fill(name.endsWith(".bias") ? 0 : 1);
  const floats = shape.length > 1 ? evenFloats(count, reach) : plain;
  const values = HostTensor.fromFloat32(floats, shape);
  return format.kind === "dense" ? values.cast(format.dtype) : values;
}
