/** QuantoConfig with the fields, defaults and checks of Diffusers' quantization_config.py. */

import { HalftoneError } from "../errors.ts";
import type { JsonValue } from "./python_json.ts";
import type { QuantizationConfig } from "./quantizer.ts";

/** The name of a Quanto weight type; float8 is e4m3fn. */
export type QuantoDType = "float8" | "int8" | "int4" | "int2";

/** What Quanto makes of weights. */
const QUANTO_DTYPES: readonly QuantoDType[] = ["float8", "int8", "int4", "int2"];

/** What a QuantoConfig may be given. */
export interface QuantoOptions {
  /** Default "int8". */
  readonly weightsDtype?: QuantoDType;
  /** Modules that stay dense, by their last name. Default none. */
  readonly modulesToNotConvert?: readonly string[] | null;
}

/** How to quantize with optimum-quanto. */
export class QuantoConfig implements QuantizationConfig {
  /** The method as config.json names it. */
  readonly quantMethod = "quanto";
  /** The key of the method in Diffusers' mapping. */
  readonly backend = "quanto";
  /** See `QuantoOptions.weightsDtype`. */
  readonly weightsDtype: QuantoDType;
  /** See `QuantoOptions.modulesToNotConvert`. */
  readonly modulesToNotConvert: readonly string[] | null;

  /** Throws `quantization_config`. */
  constructor({ weightsDtype = "int8", modulesToNotConvert = null }: QuantoOptions = {}) {
    if (!QUANTO_DTYPES.includes(weightsDtype)) {
      throw invalid("weights_dtype", weightsDtype, QUANTO_DTYPES.join(", "));
    }
    const valid = modulesToNotConvert === null || (Array.isArray(modulesToNotConvert) &&
      modulesToNotConvert.every((name) => typeof name === "string"));
    if (!valid) throw invalid("modules_to_not_convert", modulesToNotConvert, "a list of names");
    this.weightsDtype = weightsDtype;
    this.modulesToNotConvert = modulesToNotConvert && [...modulesToNotConvert];
  }

  /** From config.json's dictionary (Transformers calls the type `weights`) or the options. */
  static fromDict(dict: Readonly<Record<string, unknown>>): QuantoConfig {
    const dtype = dict.weights_dtype ?? dict.weightsDtype ?? dict.weights ?? "int8";
    const skipped = dict.modules_to_not_convert ?? dict.modulesToNotConvert ?? null;
    if (dict.activations) throw invalid("activations", dict.activations, "null (weight-only)");
    return new QuantoConfig({
      weightsDtype: dtype as QuantoDType,
      modulesToNotConvert: skipped as readonly string[] | null,
    });
  }

  /** The dictionary as Diffusers' to_dict. */
  toDict(): { readonly [key: string]: JsonValue } {
    return {
      quant_method: this.quantMethod,
      weights_dtype: this.weightsDtype,
      modules_to_not_convert: this.modulesToNotConvert,
    };
  }

  /** The same, for JSON.stringify. */
  toJSON(): unknown {
    return this.toDict();
  }
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use a QuantoConfig";
  return new HalftoneError("quantization_config", message, { field, found, expected });
}
