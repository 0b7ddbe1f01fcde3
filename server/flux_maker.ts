/** A FluxPipeline as the server's maker of pictures. */

import type { FluxPipeline } from "../src/pipelines/flux.ts";
import type { MadePictures, PictureDefaults, PictureJob, PictureMaker } from "./picture_maker.ts";

/** What a maker is made of. */
export interface FluxMakerOptions {
  readonly pipeline: FluxPipeline;
  /** The model's public name. */
  readonly model: string;
  readonly defaults: PictureDefaults;
  /** Tokens of T5; the pipeline's own default when absent. */
  readonly maxSequenceLength?: number;
}

/** A maker over a pipeline, which it closes in the end. */
export function createFluxMaker(options: FluxMakerOptions): PictureMaker {
  const { pipeline, model, defaults, maxSequenceLength } = options;
  const make = async (job: PictureJob, signal: AbortSignal): Promise<MadePictures> => {
    const { numImages, ...request } = job;
    const { images, width, height } = await pipeline.generate({
      ...request,
      numImagesPerPrompt: numImages,
      ...(maxSequenceLength === undefined ? {} : { maxSequenceLength }),
      signal,
    });
    return { files: images.map((image) => image.toPng()), width, height };
  };
  return { model, defaults, make, close: () => pipeline.dispose() };
}
