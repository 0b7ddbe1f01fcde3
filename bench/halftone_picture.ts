/** halftone drawing whole pictures, as a contender; peers/torch_peer.py draws the same. */

import { FluxPipeline } from "../src/pipelines/flux.ts";
import type { AttentionChoice } from "../src/pipelines/attention_choice.ts";
import type { PipelineImage } from "../src/pipelines/image.ts";
import type { ActivationChoice } from "../src/quantization/activation_choice.ts";
import { parseQuantizeFlags } from "../src/quantization/formats.ts";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";
import { type Contender, timed } from "./suite/measure.ts";

/** The picture. */
export interface PictureRequest {
  /** A model's folder. */
  readonly model: string;
  readonly threads: number;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
}

/** How halftone computes it. */
export interface PictureMode {
  /** METHOD:FORMAT of the weights, each for a component or all. */
  readonly quantize?: readonly string[];
  readonly activations?: ActivationChoice;
  readonly attention?: AttentionChoice;
}

const TEXT_TOKENS = 32;

/** A pipeline that draws the picture once a run, each time of another prompt: none is known before. */
export async function openPicture(
  name: string,
  { model, threads, width, height, steps }: PictureRequest,
  { quantize = [], activations, attention }: PictureMode = {},
): Promise<Contender> {
  const quantizationConfig = parseQuantizeFlags(quantize);
  const pipeline = await FluxPipeline.fromPretrained(model, {
    backend: "wasm",
    threads,
    quantizationConfig,
    activations,
    attention,
  });
  let image: PipelineImage;
  return {
    name,
    version: `${runtimeName()} ${runtimeVersion()}`,
    settings: { threads, quantize, activations, attention },
    run: (round) =>
      timed(async () => {
        const { images } = await pipeline.generate({
          prompt: `a red star above a blue house ${round}`,
          width,
          height,
          numInferenceSteps: steps,
          maxSequenceLength: TEXT_TOKENS,
          seed: 0,
        });
        image = images[0]!;
      }),
    output: () => Promise.resolve(Float32Array.from(image.pixels, (value) => value / 255)),
    close: () => pipeline.dispose(),
  };
}
