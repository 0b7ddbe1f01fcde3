/** The stages of a transformer with random weights, and the inputs of one step. */

import type { Backend } from "../src/backends/backend.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { TIMESTEP_CHANNELS, timestepEmbedding } from "../src/models/timestep_embedding.ts";
import { openComponent } from "../src/pipelines/component.ts";
import { Stage } from "../src/pipelines/stage.ts";
import { StageClock } from "../src/pipelines/stage_clock.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import type { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";

/** FLUX.1's config.json; blocks and heads may be fewer. */
export function fluxConfig(blocks: { double: number; single: number; heads?: number }) {
  return {
    _class_name: "FluxTransformer2DModel",
    attention_head_dim: 128,
    axes_dims_rope: [16, 56, 56],
    guidance_embeds: false,
    in_channels: 64,
    joint_attention_dim: 4096,
    num_attention_heads: blocks.heads ?? 24,
    num_layers: blocks.double,
    num_single_layers: blocks.single,
    pooled_projection_dim: 768,
  };
}
export type FluxConfig = ReturnType<typeof fluxConfig>;

/** Text tokens of a step, as FLUX.1 has them. */
export const TEXT_TOKENS = 512;
const PIXELS_PER_TOKEN = 16;

/** Sizes of the denoising plan for a square picture of `pixels`. */
export function stepSizes(pixels: number) {
  const side = pixels / PIXELS_PER_TOKEN;
  return { height: side, width: side, textTokens: TEXT_TOKENS };
}

/** The stages over a folder with a transformer, quantized while it loads where a format is given. */
export async function openStages(folder: string, backend: Backend, quantize: string | undefined) {
  const component = await openComponent(
    folder,
    "transformer",
    (json) => new FluxTransformer2DModel(json),
    quantize === undefined ? {} : { quantizationConfig: parseQuantizeFlag(quantize).config },
  );
  const parts = { component, keepsWeights: false, backend, clock: new StageClock() };
  const { model } = component;
  const modulation = new Stage({
    ...parts,
    name: "transformer.modulation",
    capture: (graph, sizes: { steps: number }) => model.captureModulation(graph, sizes),
  });
  const denoise = new Stage({
    ...parts,
    name: "transformer.denoise",
    capture: (graph, sizes: ReturnType<typeof stepSizes>) => model.captureDenoise(graph, sizes),
  });
  return { component, modulation, denoise };
}

/** The modulation of the first step. */
export function firstModulation(
  { modulation }: Awaited<ReturnType<typeof openStages>>,
  config: FluxConfig,
): Promise<HostTensor> {
  return modulation.run({ steps: 1 }, {}, async (program) => {
    program.write("timestep", timestepEmbedding([1000], TIMESTEP_CHANNELS));
    program.write("pooled", noise([1, config.pooled_projection_dim]));
    await program.run();
    return program.read("modulation");
  });
}

/** Seeded noise. */
export function noise(shape: readonly number[]): HostTensor {
  return new TorchGenerator(0).randn(shape);
}
