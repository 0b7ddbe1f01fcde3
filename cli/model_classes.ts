/** The model classes by the name that a config.json gives. */

import { HalftoneError } from "../src/errors.ts";
import type { Config } from "../src/io/config.ts";
import { AutoencoderKL } from "../src/models/autoencoder_kl.ts";
import { CLIPTextModel } from "../src/models/clip.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { T5EncoderModel } from "../src/models/t5.ts";
import type { ComponentModel } from "../src/pipelines/component.ts";

const CLASSES: Readonly<Record<string, (config: Config) => ComponentModel>> = {
  AutoencoderKL: (config) => new AutoencoderKL(config),
  CLIPTextModel: (config) => new CLIPTextModel(config),
  FluxTransformer2DModel: (config) => new FluxTransformer2DModel(config),
  T5EncoderModel: (config) => new T5EncoderModel(config),
};

/**
 * The model that a component's config.json describes: Diffusers names the class in `_class_name`,
 * Transformers in `architectures`. Throws `unsupported` for another class, `invalid_config`.
 */
export function modelOfConfig(config: Config, file: string): ComponentModel {
  const named = config._class_name ?? (config.architectures as unknown[] | undefined)?.[0];
  if (typeof named === "string" && Object.hasOwn(CLASSES, named)) return CLASSES[named]!(config);
  throw new HalftoneError("unsupported", "Cannot tell the linear layers of this component", {
    file,
    field: "_class_name or architectures",
    found: named ?? "nothing",
    expected: Object.keys(CLASSES).join(", "),
  });
}
