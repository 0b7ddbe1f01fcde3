/**
 * FP8 layerwise casting (Diffusers' hooks/layerwise_casting.py): weights are rounded to 8-bit floats and
 * widened again where they are used. A checkpoint of it simply holds float8 tensors. Single-file
 * checkpoints that keep a scale beside a weight are read too:
 *
 *     X.weight         float8 [rows, columns]
 *     X.scale_weight   (or X.weight_scale) a scalar, or one per row: w = float8 * scale
 */

import { HalftoneError } from "../errors.ts";
import type { WeightInfo } from "../ops/graph.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import { SMALL_FLOATS } from "../tensor/small_float.ts";
import { float8Codes } from "./encode_rule.ts";
import { checkFinite } from "./float_slices.ts";
import { encodeGroups } from "./groups.ts";
import {
  DEFAULT_SKIP_MODULES_PATTERN,
  LayerwiseCastingConfig,
} from "./layerwise_casting_config.ts";
import { ModulePattern } from "./module_pattern.ts";
import type { Pause } from "./pause.ts";
import type { QuantizedLayout } from "./quantized_tensor.ts";
import {
  type EncodedWeight,
  type Method,
  type ModelModules,
  moduleOf,
  type NamedTensor,
  type Quantizer,
  type QuantizerTarget,
  type TensorReader,
  weightOnlyInfo,
} from "./quantizer.ts";
import { type Float8DType, float8Table, tableLayout } from "./torchao_schemes.ts";

/** FP8 layerwise casting, and scaled single files. */
export const LAYERWISE: Method = {
  name: "layerwise",
  backends: ["layerwise"],
  sharedWithTransformers: false,
  accepts: (config) => config instanceof LayerwiseCastingConfig,
  fromDict: (dict) => LayerwiseCastingConfig.fromDict(dict),
  create: (config, target) => new LayerwiseQuantizer(config as LayerwiseCastingConfig, target),
  detect: detectConfig,
  formats: [
    format(
      "float8_e4m3fn",
      "float8 e4m3 without a scale; norm, embed and outer modules stay dense",
    ),
    format("float8_e5m2", "float8 e5m2 without a scale; norm, embed and outer modules stay dense"),
  ],
};

function format(name: Float8DType, description: string) {
  const config = () => new LayerwiseCastingConfig({ storageDtype: name });
  return { name, description, config };
}

/** Classes of modules that Diffusers casts, of those that these models have. */
const CAST_CLASSES = ["Linear", "Conv2d", "Embedding"];

const SCALE_NAMES = ["scale_weight", "weight_scale"];
/** Scales of activations, which stay in float here, and a marker of scaled files. */
const OTHER_NAMES = ["scale_input", "input_scale"];
const MARKER = "scaled_fp8";

class LayerwiseQuantizer implements Quantizer {
  readonly config: LayerwiseCastingConfig;
  /** config.json says nothing of it. */
  readonly configless = true;
  readonly #patterns: readonly ModulePattern[];
  readonly #modules: ModelModules;

  constructor(config: LayerwiseCastingConfig, target: QuantizerTarget) {
    this.config = config;
    this.#modules = target.modules ?? {};
    const own = this.#modules.skipLayerwiseCastingPatterns ?? [];
    const patterns = [...config.skipModulesPattern, ...target.keepInFloat32, ...own];
    this.#patterns = [...new Set(patterns)].map((pattern) => {
      return new ModulePattern(pattern, "skip_modules_pattern");
    });
  }

  /** Whether a pattern is found in the name of the module or of one around it, or their class is listed. */
  skips(module: string): boolean {
    const parts = module.split(".");
    const names = parts.map((_, index) => parts.slice(0, index + 1).join("."));
    return this.#isListed("") || !this.#isCastable(module) || names.some((name) => {
      return this.#isListed(name) || this.#patterns.some((pattern) => pattern.test(name));
    });
  }

  #isListed(module: string): boolean {
    const name = this.#modules.classOfModule?.(module);
    return name !== undefined && this.config.skipModulesClasses.includes(name);
  }

  /** Diffusers casts whole modules, and only of these classes; without a model every module will do. */
  #isCastable(module: string): boolean {
    const name = this.#modules.classOfModule?.(module);
    return name === undefined || CAST_CLASSES.includes(name);
  }

  describe(shape: Shape): WeightInfo | null {
    if (shape.length !== 2) return null;
    return weightOnlyInfo(shape, castLayout(this.config.storageDtype, elementCount(shape)));
  }

  async quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    const { storageDtype } = this.config;
    const layout = castLayout(storageDtype, dense.size);
    const one = Float32Array.of(1);
    const code = float8Codes(SMALL_FLOATS[storageDtype]);
    const rule = { rounding: "float32", operation: "multiply", factor: one, code } as const;
    const options = { groupSize: dense.size, bits: 8, rule };
    const bytes = await encodeGroups(name, dense, options, pause);
    return encoded(dense.shape, layout, bytes, HostTensor.fromFloat32(one), dense.dtype);
  }

  /** Biases, convolutions and tables are rounded as well. */
  storageType(name: string, shape: Shape): DType | null {
    const isCast = name.endsWith(".bias") || (name.endsWith(".weight") && shape.length > 1);
    return isCast && !this.skips(moduleOf(name)) ? this.config.storageDtype : null;
  }

  isCompanion(name: string, checkpoint: TensorReader): boolean {
    if (name === MARKER) return true;
    const suffix = name.slice(name.lastIndexOf(".") + 1);
    if (![...SCALE_NAMES, ...OTHER_NAMES].includes(suffix)) return false;
    return checkpoint.entries.has(`${moduleOf(name)}.weight`);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    return isCastWeight(name, checkpoint);
  }

  describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const { shape, layout } = describeCast(name, checkpoint);
    return Promise.resolve(weightOnlyInfo(shape, layout));
  }

  async read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    const { shape, layout, scale } = describeCast(name, checkpoint);
    const verbatim = new Map<string, HostTensor>();
    for (const suffix of [...SCALE_NAMES, ...OTHER_NAMES]) {
      const tensor = `${moduleOf(name)}.${suffix}`;
      if (checkpoint.entries.has(tensor)) verbatim.set(suffix, await checkpoint.read(tensor));
    }
    const stored = scale === null ? undefined : verbatim.get(scale);
    const values = stored?.toFloat32() ?? Float32Array.of(1);
    checkFinite({ start: 0, values }, `${moduleOf(name)}.${scale}`);
    const { bytes } = await checkpoint.read(name);
    const tensor = HostTensor.fromFloat32(values.slice());
    return { ...encoded(shape, layout, bytes, tensor, "bfloat16"), verbatim };
  }

  write(name: string, { tensor, verbatim }: EncodedWeight): NamedTensor[] {
    const { value } = tensor.layout;
    const isE5m2 = value.kind === "table" && value.table[1] === 2 ** -16;
    const dtype = isE5m2 ? "float8_e5m2" : "float8_e4m3fn";
    const weight = { name, tensor: new HostTensor(dtype, tensor.shape, tensor.codes) };
    const beside = [...verbatim ?? []].map(([suffix, tensor]) => {
      return { name: `${moduleOf(name)}.${suffix}`, tensor };
    });
    return [weight, ...beside];
  }
}

/** Marks a cast weight among those of another method. */
export const CAST_FORM = "layerwise";

function castLayout(dtype: Float8DType, groupSize: number): QuantizedLayout {
  return tableLayout(8, float8Table(dtype), groupSize, { kind: "float", dtype: "float32" });
}

function encoded(
  shape: Shape,
  layout: QuantizedLayout,
  codes: Uint8Array,
  values: HostTensor,
  dtype: DType,
): EncodedWeight {
  const scale = { kind: "float", values } as const;
  return {
    dtype,
    form: CAST_FORM,
    tensor: { shape: [shape[0], shape[1]], layout, codes, scale, offset: null },
  };
}

/** Whether the checkpoint holds this matrix in 8-bit floats, with a scale beside it or none. */
export function isCastWeight(name: string, checkpoint: TensorReader): boolean {
  const entry = checkpoint.entries.get(name);
  return name.endsWith(".weight") && entry?.shape.length === 2 && entry.dtype.startsWith("float8");
}

/** The layout of a stored weight, and the name of its scale. */
function describeCast(name: string, checkpoint: TensorReader): {
  readonly shape: Shape;
  readonly layout: QuantizedLayout;
  readonly scale: string | null;
} {
  const { dtype, shape } = checkpoint.entries.get(name)!;
  const scale = scaleNameOf(name, checkpoint);
  const values = scale === null ? 1 : scaleCount(name, scale, shape, checkpoint);
  const layout = castLayout(dtype as Float8DType, elementCount(shape) / values);
  return { shape, layout, scale };
}

function scaleNameOf(name: string, checkpoint: TensorReader): string | null {
  const found = SCALE_NAMES.find((suffix) => checkpoint.entries.has(`${moduleOf(name)}.${suffix}`));
  return found ?? null;
}

/** One scale for all, or one per row. */
function scaleCount(name: string, suffix: string, shape: Shape, checkpoint: TensorReader): number {
  const tensor = `${moduleOf(name)}.${suffix}`;
  const entry = checkpoint.entries.get(tensor)!;
  const count = elementCount(entry.shape);
  const isFloat = ["float32", "bfloat16", "float16"].includes(entry.dtype);
  if (isFloat && (count === 1 || (count === shape[0] && entry.shape[0] === count))) return count;
  throw new HalftoneError("tensor_shape_mismatch", "Cannot use the scale of a float8 weight", {
    tensor,
    file: entry.file,
    found: `${entry.dtype} [${entry.shape}]`,
    expected: `a float scalar or [${shape[0]}, 1]`,
  });
}

/** Float8 matrices in a checkpoint without a config are cast, or scaled, weights. */
function detectConfig(checkpoint: TensorReader): Record<string, unknown> | null {
  let storageDtype: DType | null = null;
  let scaled = false;
  for (const [name, { dtype }] of checkpoint.entries) {
    if (!isCastWeight(name, checkpoint)) continue;
    storageDtype ??= dtype;
    scaled ||= scaleNameOf(name, checkpoint) !== null;
  }
  const skip_modules_pattern = DEFAULT_SKIP_MODULES_PATTERN;
  return storageDtype && { storage_dtype: storageDtype, skip_modules_pattern, scaled };
}
