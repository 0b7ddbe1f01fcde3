/** FP8 layerwise casting: the arguments of Diffusers' enable_layerwise_casting as a config. */

import { HalftoneError } from "../errors.ts";
import { ModulePattern } from "./module_pattern.ts";
import type { JsonValue } from "./python_json.ts";
import type { QuantizationConfig } from "./quantizer.ts";
import type { Float8DType } from "./torchao_schemes.ts";

/** Modules that Diffusers leaves alone unless told otherwise: regular expressions, searched for. */
export const DEFAULT_SKIP_MODULES_PATTERN: readonly string[] = [
  "pos_embed",
  "patch_embed",
  "norm",
  "^proj_in$",
  "^proj_out$",
];

/** What a LayerwiseCastingConfig may be given; the names are those of enable_layerwise_casting. */
export interface LayerwiseCastingOptions {
  /** What weights are stored as. Default "float8_e4m3fn". */
  readonly storageDtype?: Float8DType;
  /** Recorded only; halftone multiplies in float32 always. */
  readonly computeDtype?: "float32" | "float16" | "bfloat16" | null;
  /**
   * Regular expressions of module names to leave alone; the default ones when absent. Those of the model
   * class (Flux: "pos_embed", "norm") and the modules it keeps in float32 always join them.
   */
  readonly skipModulesPattern?: readonly string[] | null;
  /** Python classes of modules to leave alone with all that is in them, such as "Embedding". */
  readonly skipModulesClasses?: readonly string[] | null;
  /** What is quantized first: the casting is for the rest of the component. */
  readonly quantizationConfig?: QuantizationConfig | null;
}

/** How to store weights as 8-bit floats without a scale. */
export class LayerwiseCastingConfig implements QuantizationConfig {
  /** Not a method of Diffusers' configs: the types of the tensors say it all. */
  readonly quantMethod: string;
  /** The name of the method here; Diffusers has no key for it. */
  readonly backend = "layerwise";
  /** A checkpoint in 8-bit floats is cast and quantized again when the caller wants another format. */
  readonly givesWay: boolean;
  /** See `LayerwiseCastingOptions.storageDtype`. */
  readonly storageDtype: Float8DType;
  /** See `LayerwiseCastingOptions.computeDtype`. */
  readonly computeDtype: "float32" | "float16" | "bfloat16" | null;
  /** See `LayerwiseCastingOptions.skipModulesPattern`. */
  readonly skipModulesPattern: readonly string[];
  /** See `LayerwiseCastingOptions.skipModulesClasses`. */
  readonly skipModulesClasses: readonly string[];
  /** See `LayerwiseCastingOptions.quantizationConfig`. */
  readonly quantizationConfig: QuantizationConfig | null;

  /** Throws `quantization_config`. */
  constructor(options: LayerwiseCastingOptions & { readonly scaled?: boolean } = {}) {
    const { storageDtype = "float8_e4m3fn", computeDtype = null, skipModulesPattern } = options;
    if (storageDtype !== "float8_e4m3fn" && storageDtype !== "float8_e5m2") {
      throw invalid("storage_dtype", storageDtype, "float8_e4m3fn or float8_e5m2");
    }
    this.storageDtype = storageDtype;
    this.computeDtype = computeDtype;
    this.skipModulesPattern = checkedPatterns(skipModulesPattern ?? DEFAULT_SKIP_MODULES_PATTERN);
    this.skipModulesClasses = checkedNames(options.skipModulesClasses ?? []);
    this.quantizationConfig = options.quantizationConfig ?? null;
    const first = this.quantizationConfig?.quantMethod;
    this.quantMethod = first === undefined ? "layerwise" : `${first}+layerwise`;
    this.givesWay = !options.scaled;
    if (this.quantizationConfig instanceof LayerwiseCastingConfig) {
      throw invalid("quantization_config", "another layerwise casting", "one of another method");
    }
  }

  /** The same casting, of what another config leaves dense. */
  over(quantizationConfig: QuantizationConfig): LayerwiseCastingConfig {
    return new LayerwiseCastingConfig({ ...this, quantizationConfig });
  }

  /** From a dictionary of the arguments, in either case. Throws `quantization_config`. */
  static fromDict(dict: Readonly<Record<string, unknown>>): LayerwiseCastingConfig {
    return new LayerwiseCastingConfig({
      storageDtype: (dict.storage_dtype ?? dict.storageDtype) as Float8DType | undefined,
      computeDtype: (dict.compute_dtype ?? dict.computeDtype ?? null) as null,
      skipModulesPattern: (dict.skip_modules_pattern ?? dict.skipModulesPattern) as undefined,
      skipModulesClasses: (dict.skip_modules_classes ?? dict.skipModulesClasses) as undefined,
      scaled: dict.scaled === true,
    });
  }

  /** The arguments, in snake_case; or what is quantized first, which config.json speaks of. */
  toDict(): { readonly [key: string]: JsonValue } {
    if (this.quantizationConfig) return this.quantizationConfig.toDict();
    return {
      quant_method: this.quantMethod,
      storage_dtype: this.storageDtype,
      compute_dtype: this.computeDtype,
      skip_modules_pattern: this.skipModulesPattern,
      skip_modules_classes: this.skipModulesClasses,
    };
  }

  /** The same, for JSON.stringify. */
  toJSON(): unknown {
    return this.toDict();
  }
}

function checkedPatterns(patterns: unknown): readonly string[] {
  if (!Array.isArray(patterns)) throw invalid("skip_modules_pattern", patterns, "a list");
  for (const pattern of patterns) new ModulePattern(pattern, "skip_modules_pattern");
  return [...patterns];
}

function checkedNames(names: unknown): readonly string[] {
  const valid = Array.isArray(names) && names.every((name) => typeof name === "string");
  if (valid) return [...names as string[]];
  throw invalid("skip_modules_classes", names, "a list of class names");
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use a LayerwiseCastingConfig";
  return new HalftoneError("quantization_config", message, { field, found, expected });
}
