/** Which quantizer a component gets: the rules by which a checkpoint's config and the caller's meet. */

import {
  createQuantizer,
  detectQuantization,
  mergeQuantizationConfigs,
  type QuantizationConfigLike,
  toConfig,
} from "./auto.ts";
import { isCastWeight } from "./layerwise_casting.ts";
import { LayerwiseCastingConfig } from "./layerwise_casting_config.ts";
import { LayerwiseRest } from "./layerwise_rest.ts";
import { skippingOuterModules } from "./outer_modules.ts";
import type {
  ModelModules,
  QuantizationConfig,
  Quantizer,
  QuantizerTarget,
  TensorReader,
} from "./quantizer.ts";
import type { ModelLibrary } from "./skip_modules.ts";
import type { Float8DType } from "./torchao_schemes.ts";

/** What there is to choose from. */
export interface ResolveOptions {
  /** The component's config.json; {} when it has none. */
  readonly config: Readonly<Record<string, unknown>>;
  /** How to quantize while loading; a checkpoint that is quantized already keeps its own. */
  readonly quantizationConfig?: QuantizationConfigLike | null;
  /** Modules that the model class keeps in float32; they are not quantized either. T5: ["wo"]. */
  readonly keepInFloat32?: readonly string[];
  /** What the model class says of its modules. */
  readonly modules?: ModelModules;
  /** Told when the caller's config gives way to the checkpoint's; console.warn by default. */
  readonly onWarning?: (message: string) => void;
}

/** The quantizer of a component, if any, and whether the checkpoint was quantized by it already. */
export interface Resolved {
  readonly quantizer: Quantizer | null;
  readonly preQuantized: boolean;
}

/** The library whose config.json this is: Diffusers writes _class_name, Transformers does not. */
export function libraryOf(config: Readonly<Record<string, unknown>>): ModelLibrary {
  return "_class_name" in config ? "diffusers" : "transformers";
}

/**
 * Finds the config in effect: the checkpoint's own, what its keys show, or the caller's. A caller's
 * layerwise casting is no second quantization: it is for what the checkpoint holds dense.
 */
export function resolveQuantizer(checkpoint: TensorReader, options: ResolveOptions): Resolved {
  const asked = options.quantizationConfig ? toConfig(options.quantizationConfig) : null;
  const own = ownConfig(checkpoint, options, asked);
  const target: QuantizerTarget = {
    library: libraryOf(options.config),
    keepInFloat32: options.keepInFloat32 ?? [],
    tensors: [...checkpoint.entries.keys()],
    modules: options.modules,
  };
  if (own) {
    return {
      quantizer: storedQuantizer(checkpoint, own, asked, target, options),
      preQuantized: true,
    };
  }
  if (!asked) return { quantizer: null, preQuantized: false };
  const config = skippingOuterModules(asked, target);
  return { quantizer: createQuantizer(config, target), preQuantized: false };
}

function ownConfig(
  checkpoint: TensorReader,
  { config }: ResolveOptions,
  asked: QuantizationConfig | null,
): QuantizationConfig | null {
  if (config.quantization_config) return toConfig(config.quantization_config as object as never);
  const detected = detectQuantization(checkpoint);
  return detected?.givesWay && asked ? null : detected;
}

function storedQuantizer(
  checkpoint: TensorReader,
  own: QuantizationConfig,
  asked: QuantizationConfig | null,
  target: QuantizerTarget,
  { onWarning }: ResolveOptions,
): Quantizer {
  const castsRest = asked instanceof LayerwiseCastingConfig &&
    !(own instanceof LayerwiseCastingConfig);
  if (!castsRest || asked.quantizationConfig) mergeQuantizationConfigs(own, asked, onWarning);
  const first = createQuantizer(own, target);
  const casting = castsRest ? asked : storedCasting(checkpoint, first);
  if (casting === null) return first;
  const alone = new LayerwiseCastingConfig({ ...casting, quantizationConfig: null });
  const options = { isStored: true, castsRest };
  return new LayerwiseRest(first, createQuantizer(alone, target), casting.over(own), options);
}

/** How a checkpoint was cast after it was quantized: its config does not say so, its tensors do. */
function storedCasting(
  checkpoint: TensorReader,
  quantizer: Quantizer,
): LayerwiseCastingConfig | null {
  if (quantizer.config instanceof LayerwiseCastingConfig) return null;
  for (const [name, { dtype }] of checkpoint.entries) {
    if (!isCastWeight(name, checkpoint) || quantizer.isStored(name, checkpoint)) continue;
    return new LayerwiseCastingConfig({ storageDtype: dtype as Float8DType });
  }
  return null;
}
