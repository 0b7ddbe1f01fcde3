/** torchao's config objects that round activations as well as weights (quant_api.py). */

import { plainText } from "./plain_values.ts";
import { JsonNumber, type JsonValue } from "./python_json.ts";
import type {
  ActivationGranularity,
  ActivationMapping,
  StaticActivationScale,
  TorchaoActivations,
} from "./torchao_activations.ts";
import type { Float8DType, Granularity, MappingType, Scheme } from "./torchao_schemes.ts";
import {
  expectTag,
  granularityJson,
  granularityOfJson,
  IntxWeightOnlyConfig,
  invalid,
  numberOf,
  object,
  tag,
  tagOf,
  type TorchAoQuantType,
} from "./torchao_types.ts";

/** One granularity for both, or that of activations and that of weights. */
export type GranularityPair =
  | ActivationGranularity
  | readonly [activations: ActivationGranularity, weights: ActivationGranularity];

/** What an Int8DynamicActivationInt8WeightConfig may be given. */
export interface Int8DynamicOptions {
  /** "SYMMETRIC" (default) or "ASYMMETRIC". */
  readonly actMappingType?: ActivationMapping;
  /** "row" (default) or "tensor", or one for activations and one for weights. */
  readonly granularity?: GranularityPair;
  /** Seven bits instead of eight. Default false. */
  readonly reduceRange?: boolean;
}

/** Int8DynamicActivationInt8WeightConfig of torchao: int8 weights, and activations rounded to int8 per token. */
export class Int8DynamicActivationInt8WeightConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Int8DynamicActivationInt8WeightConfig";
  /** What weights become. */
  readonly scheme: Scheme;
  /** How activations are rounded. */
  readonly activations: TorchaoActivations & { kind: "int8" };
  readonly #granularity: GranularityPair;

  /** Throws `quantization_config`. */
  constructor(options: Int8DynamicOptions = {}) {
    const { granularity = "row", reduceRange = false } = options;
    const int8 = int8Parts({ ...options, granularity, reduceRange });
    this.scheme = int8.scheme;
    this.activations = int8.activations;
    this.#granularity = granularity;
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    return object(this.type, 2, {
      act_mapping_type: tag("MappingType", this.activations.mapping),
      weight_only_decode: false,
      granularity: pairJson(this.#granularity),
      set_inductor_config: true,
      reduce_range: this.activations.reduceRange,
    });
  }
}

/** What an Int8StaticActivationInt8WeightConfig may be given. */
export interface Int8StaticOptions extends Int8DynamicOptions {
  /** What an activation code is worth; weights cannot be quantized without it. */
  readonly actQuantScale?: number | null;
  /** The code that means 0, for asymmetric mappings. */
  readonly actQuantZeroPoint?: number | null;
}

/** Int8StaticActivationInt8WeightConfig of torchao: as the dynamic one, with one scale known before. */
export class Int8StaticActivationInt8WeightConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Int8StaticActivationInt8WeightConfig";
  /** What weights become. */
  readonly scheme: Scheme;
  /** How activations are rounded. */
  readonly activations: TorchaoActivations & { kind: "int8" };
  /** The scale of all layers that are quantized by this config; null when only stored ones are read. */
  readonly activationScale: StaticActivationScale | null;
  readonly #granularity: GranularityPair;

  /** `granularity` defaults to ["tensor", "row"]; one scale per row of activations is none that is known before. */
  constructor(options: Int8StaticOptions = {}) {
    const { granularity = ["tensor", "row"], reduceRange = false } = options;
    const { actQuantScale: scale = null, actQuantZeroPoint: zero = null } = options;
    const int8 = int8Parts({ ...options, granularity, reduceRange });
    if (int8.activations.granularity !== "tensor") {
      throw invalid("granularity", "row", "tensor for activations");
    }
    if (scale !== null && !(scale > 0 && scale < Infinity)) {
      throw invalid("act_quant_scale", scale, "a positive number");
    }
    if (zero !== null && !(Number.isInteger(zero) && zero >= -128 && zero <= 127)) {
      throw invalid("act_quant_zero_point", zero, "an integer of 8 bits");
    }
    this.scheme = int8.scheme;
    this.activations = int8.activations;
    this.activationScale = scale === null ? null : { scale: Math.fround(scale), zero: zero ?? 0 };
    this.#granularity = granularity;
  }

  /** torchao's dictionary; the scale lies with each weight and not here, where torchao could not write it. */
  toDict(): { readonly [key: string]: JsonValue } {
    return object(this.type, 1, {
      act_quant_scale: null,
      act_quant_zero_point: null,
      granularity: pairJson(this.#granularity),
      act_mapping_type: tag("MappingType", this.activations.mapping),
      set_inductor_config: true,
      reduce_range: this.activations.reduceRange,
    });
  }
}

/** What an Int8DynamicActivationIntxWeightConfig may be given. */
export interface Int8DynamicIntxOptions {
  /** "int1" to "int8" (default). */
  readonly weightDtype?: string;
  /** Columns that share a scale, 32 by default, or "row". */
  readonly weightGranularity?: number | "row";
  /** "SYMMETRIC" (default), "ASYMMETRIC" or "SYMMETRIC_NO_CLIPPING_ERR". */
  readonly weightMappingType?: MappingType;
}

/**
 * Int8DynamicActivationIntxWeightConfig of torchao: weights of 1 to 8 bits, and activations rounded to
 * asymmetric int8 per token. Int8DynamicActivationInt4WeightConfig has become this.
 */
export class Int8DynamicActivationIntxWeightConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Int8DynamicActivationIntxWeightConfig";
  /** What weights become. */
  readonly scheme: Scheme;
  /** How activations are rounded. */
  readonly activations: TorchaoActivations = { kind: "int8_asym_per_token" };

  /** Throws `quantization_config`. */
  constructor(options: Int8DynamicIntxOptions = {}) {
    const { weightDtype, weightGranularity = 32, weightMappingType } = options;
    this.scheme = new IntxWeightOnlyConfig({
      weightDtype,
      granularity: weightGranularity,
      mappingType: weightMappingType,
    }).scheme;
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { bits, granularity, mapping } = this.scheme as Scheme & { kind: "intx" };
    const axis = { _type: "PerAxis", _version: 1, _data: { axis: 0 } };
    return object(this.type, 2, {
      weight_dtype: tag("torch.dtype", `int${bits}`),
      weight_granularity: granularity === "row" ? axis : granularityJson(granularity),
      weight_mapping_type: tag("MappingType", mapping),
      weight_scale_dtype: null,
      act_mapping_type: tag("MappingType", "ASYMMETRIC"),
      intx_packing_format: tag("IntxPackingFormat", "UNPACKED_TO_INT8"),
      intx_choose_qparams_algorithm: tag("IntxChooseQParamsAlgorithm", "AFFINE"),
    });
  }
}

/** What a Float8DynamicActivationFloat8WeightConfig may be given. */
export interface Float8DynamicOptions {
  /** "float8_e4m3fn" (default) or "float8_e5m2". */
  readonly activationDtype?: Float8DType;
  /** "float8_e4m3fn" (default) or "float8_e5m2". */
  readonly weightDtype?: Float8DType;
  /** "tensor" (default) or "row", for activations and weights. */
  readonly granularity?: ActivationGranularity;
  /** The least absmax of activations that counts. Default null. */
  readonly activationValueLb?: number | null;
}

/**
 * Float8DynamicActivationFloat8WeightConfig of torchao: float8 weights and activations. A layer with
 * rows or columns that 16 does not divide stays dense, as in torchao.
 */
export class Float8DynamicActivationFloat8WeightConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Float8DynamicActivationFloat8WeightConfig";
  /** What weights become. */
  readonly scheme: Scheme;
  /** How activations are rounded. */
  readonly activations: TorchaoActivations & { kind: "float8" };
  /** Rows and columns are multiples of it, or the layer stays dense. */
  readonly multipleOf = 16;

  /** Throws `quantization_config`. */
  constructor(options: Float8DynamicOptions = {}) {
    const { granularity = "tensor", activationValueLb: lowerBound = null } = options;
    const { activationDtype = "float8_e4m3fn", weightDtype = "float8_e4m3fn" } = options;
    expectOneOf("granularity", granularity, ["row", "tensor"]);
    expectOneOf("activation_dtype", activationDtype, ["float8_e4m3fn", "float8_e5m2"]);
    expectOneOf("weight_dtype", weightDtype, ["float8_e4m3fn", "float8_e5m2"]);
    if (lowerBound !== null && !(lowerBound >= 0 && lowerBound < Infinity)) {
      throw invalid("activation_value_lb", lowerBound, "a number of at least 0, or null");
    }
    this.scheme = { kind: "float8", dtype: weightDtype, granularity };
    this.activations = { kind: "float8", dtype: activationDtype, granularity, lowerBound };
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { dtype, granularity, lowerBound } = this.activations;
    const { dtype: weightDtype } = this.scheme as Scheme & { kind: "float8" };
    return object(this.type, 2, {
      activation_dtype: tag("torch.dtype", dtype),
      weight_dtype: tag("torch.dtype", weightDtype),
      granularity: pairJson([granularity, granularity]),
      packing_format: tag("Float8PackingFormat", "PLAIN"),
      mm_config: object("Float8MMConfig", 1, MATMUL),
      activation_value_lb: lowerBound === null ? null : JsonNumber.float(lowerBound),
      activation_value_ub: null,
      kernel_preference: tag("KernelPreference", "AUTO"),
      set_inductor_config: true,
      alg_id: 0,
    });
  }
}

/** Float8MMConfig, as torchao fills it in. */
export const MATMUL: JsonValue = { emulate: false, use_fast_accum: true, pad_inner_dim: false };

/** The config object of an old name that rounds activations; null for other names. */
export function dynamicTypeOfName(
  name: string,
  kwargs: Readonly<Record<string, unknown>> = {},
): TorchAoQuantType | null {
  switch (name) {
    case "int8dq":
    case "int8_dynamic_activation_int8_weight":
      return new Int8DynamicActivationInt8WeightConfig();
    case "int4dq":
    case "int8_dynamic_activation_int4_weight":
      return int4Type(kwargs.group_size as number | undefined);
    case "float8dq":
    case "float8dq_e4m3":
    case "float8dq_e4m3_tensor":
    case "float8_dynamic_activation_float8_weight":
      return new Float8DynamicActivationFloat8WeightConfig();
    case "float8dq_e4m3_row":
      return new Float8DynamicActivationFloat8WeightConfig({ granularity: "row" });
    default:
      return null;
  }
}

/** What torchao's Int8DynamicActivationInt4WeightConfig was. */
function int4Type(weightGranularity?: number): TorchAoQuantType {
  return new Int8DynamicActivationIntxWeightConfig({ weightDtype: "int4", weightGranularity });
}

type Json = Readonly<Record<string, unknown>>;

/** The config object of torchao's dictionary, where it rounds activations; null for others. */
export function dynamicTypeOfDict(dict: Json): TorchAoQuantType | null {
  const data = (dict._data ?? {}) as Json;
  switch (dict._type) {
    case "Int8DynamicActivationInt8WeightConfig":
      return new Int8DynamicActivationInt8WeightConfig(int8OptionsOf(data));
    case "Int8StaticActivationInt8WeightConfig":
      return new Int8StaticActivationInt8WeightConfig(int8OptionsOf(data));
    case "Int8DynamicActivationInt4WeightConfig":
      return int4Type(numberOf(data.group_size));
    case "Int8DynamicActivationIntxWeightConfig":
      return intxOfData(data);
    case "Float8DynamicActivationFloat8WeightConfig":
      return float8OfData(data);
    default:
      return null;
  }
}

function int8OptionsOf(data: Json): Int8DynamicOptions {
  return {
    actMappingType: tagOf(data.act_mapping_type) as ActivationMapping | undefined,
    granularity: pairOfJson(data.granularity),
    reduceRange: data.reduce_range === true,
  };
}

function intxOfData(data: Json): TorchAoQuantType {
  expectTag(data, "intx_packing_format", "UNPACKED_TO_INT8");
  expectTag(data, "intx_choose_qparams_algorithm", "AFFINE");
  expectTag(data, "act_mapping_type", "ASYMMETRIC");
  if (data.weight_scale_dtype) {
    throw invalid("weight_scale_dtype", tagOf(data.weight_scale_dtype), "null");
  }
  return new Int8DynamicActivationIntxWeightConfig({
    weightDtype: tagOf(data.weight_dtype) as string | undefined,
    weightGranularity: granularityOfJson(data.weight_granularity) as number | "row" | undefined,
    weightMappingType: tagOf(data.weight_mapping_type) as MappingType | undefined,
  });
}

function float8OfData(data: Json): TorchAoQuantType {
  expectTag(data, "packing_format", "PLAIN");
  if ((data.activation_value_ub ?? null) !== null) {
    throw invalid("activation_value_ub", data.activation_value_ub, "null");
  }
  const pair = pairOfJson(data.granularity);
  const [granularity, weights] = typeof pair === "object" ? pair : [pair, pair];
  if (granularity !== weights) throw invalid("granularity", pair, "the same for both");
  return new Float8DynamicActivationFloat8WeightConfig({
    activationDtype: tagOf(data.activation_dtype) as Float8DType | undefined,
    weightDtype: tagOf(data.weight_dtype) as Float8DType | undefined,
    granularity,
    activationValueLb: numberOf(data.activation_value_lb) ?? null,
  });
}

/** The weights and activations of int8 configs. */
function int8Parts(
  { actMappingType: mapping = "SYMMETRIC", granularity, reduceRange }: Int8DynamicOptions & {
    granularity: GranularityPair;
    reduceRange: boolean;
  },
): { scheme: Scheme; activations: TorchaoActivations & { kind: "int8" } } {
  expectOneOf("act_mapping_type", mapping, ["SYMMETRIC", "ASYMMETRIC"]);
  const [ofActivations, ofWeights] = typeof granularity === "string"
    ? [granularity, granularity]
    : granularity;
  for (const one of [ofActivations, ofWeights]) expectOneOf("granularity", one, ["row", "tensor"]);
  return {
    scheme: { kind: "int8", granularity: ofWeights, reduceRange },
    activations: { kind: "int8", granularity: ofActivations, mapping, reduceRange },
  };
}

function pairJson(pair: GranularityPair): JsonValue {
  return typeof pair === "string" ? granularityJson(pair) : pair.map(granularityJson);
}

function pairOfJson(value: unknown): GranularityPair | undefined {
  if (!Array.isArray(value)) return granularityOfJson(value) as ActivationGranularity | undefined;
  const pair = value.map((one) => granularityOfJson(one)) as Granularity[];
  if (pair.length !== 2) throw invalid("granularity", pair, "one, or two");
  return [pair[0] as ActivationGranularity, pair[1] as ActivationGranularity];
}

function expectOneOf(field: string, found: unknown, expected: readonly string[]): void {
  if (!expected.includes(plainText(found))) throw invalid(field, found, expected.join(" or "));
}
