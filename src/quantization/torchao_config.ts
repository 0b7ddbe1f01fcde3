/** TorchAoConfig with the fields and checks of Diffusers' quantization_config.py. */

import { HalftoneError } from "../errors.ts";
import { JsonNumber, type JsonValue } from "./python_json.ts";
import type { QuantizationConfig } from "./quantizer.ts";
import { dynamicTypeOfDict, dynamicTypeOfName } from "./torchao_dynamic.ts";
import { quantTypeOfDict, quantTypeOfName, type TorchAoQuantType } from "./torchao_types.ts";

/** What a TorchAoConfig may be given. */
export interface TorchAoOptions {
  /** A config object, or one of the names Diffusers took before, such as "int8wo". */
  readonly quantType: TorchAoQuantType | string;
  /** Modules that stay dense. Default none. */
  readonly modulesToNotConvert?: readonly string[] | null;
  /** Arguments beside a name: { group_size: 64 }. */
  readonly quantTypeKwargs?: Readonly<Record<string, unknown>>;
}

/** How to quantize with torchao. */
export class TorchAoConfig implements QuantizationConfig {
  /** The method as config.json names it. */
  readonly quantMethod = "torchao";
  /** The key of the method in Diffusers' mapping. */
  readonly backend = "torchao";
  /** What weights become. */
  readonly quantType: TorchAoQuantType;
  /** Modules that stay dense. */
  readonly modulesToNotConvert: readonly string[] | null;

  /** Throws `quantization_config`, or `unsupported` for packings that are not known here. */
  constructor({ quantType, modulesToNotConvert = null, quantTypeKwargs }: TorchAoOptions) {
    this.quantType = resolved(quantType, quantTypeKwargs);
    this.modulesToNotConvert = checkNames(modulesToNotConvert);
  }

  /** From config.json's dictionary, or the options in camelCase. Throws `quantization_config`. */
  static fromDict(dict: Readonly<Record<string, unknown>>): TorchAoConfig {
    return new TorchAoConfig({
      quantType: typeOf(dict.quant_type ?? dict.quantType),
      modulesToNotConvert: (dict.modules_to_not_convert ?? dict.modulesToNotConvert ?? null) as
        | string[]
        | null,
      quantTypeKwargs: (dict.quant_type_kwargs ?? dict.quantTypeKwargs) as undefined,
    });
  }

  /** The dictionary as Diffusers' to_dict. */
  toDict(): { readonly [key: string]: JsonValue } {
    return {
      quant_method: this.quantMethod,
      quant_type: { default: this.quantType.toDict() },
      modules_to_not_convert: this.modulesToNotConvert,
    };
  }

  /** The same, for JSON.stringify. */
  toJSON(): unknown {
    return this.toDict();
  }
}

function resolved(
  quantType: unknown,
  kwargs?: Readonly<Record<string, unknown>>,
): TorchAoQuantType {
  if (typeof quantType === "string") {
    const plainKwargs = plain(kwargs ?? {});
    return dynamicTypeOfName(quantType, plainKwargs) ?? quantTypeOfName(quantType, plainKwargs);
  }
  if (typeof quantType === "object" && quantType !== null && "scheme" in quantType) {
    return quantType as TorchAoQuantType;
  }
  throw invalid("quant_type", quantType, "a config object of torchao, or a name");
}

/** A name, a config object, its dictionary, or { default: dictionary } as config.json holds it. */
function typeOf(value: unknown): TorchAoQuantType | string {
  if (typeof value !== "object" || value === null || "scheme" in value) {
    return value as TorchAoQuantType | string;
  }
  const dict = value as Readonly<Record<string, unknown>>;
  if ("_type" in dict) return dynamicTypeOfDict(dict) ?? quantTypeOfDict(dict);
  const keys = Object.keys(dict);
  if (keys.length === 1 && keys[0] === "default") return typeOf(dict.default);
  throw invalid("quant_type", keys.join(", "), 'the one key "default"');
}

function plain(kwargs: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const entries = Object.entries(kwargs);
  return Object.fromEntries(entries.map(([key, v]) => [key, v instanceof JsonNumber ? +v : v]));
}

function checkNames(names: unknown): readonly string[] | null {
  if (names === null) return null;
  const valid = Array.isArray(names) && names.every((name) => typeof name === "string");
  if (valid) return [...names as string[]];
  throw invalid("modules_to_not_convert", names, "a list of module names");
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use a TorchAoConfig";
  return new HalftoneError("quantization_config", message, { field, found, expected });
}
