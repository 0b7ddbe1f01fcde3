/**
 * torchao's config objects (quant_api.py), as Diffusers' TorchAoConfig takes them, and the names that
 * Diffusers took before. A dictionary of one is {_type, _version, _data}, as torchao's config_to_dict.
 */

import { HalftoneError } from "../errors.ts";
import { floatxFormat } from "./floatx.ts";
import { plainNumber, plainText } from "./plain_values.ts";
import type { JsonValue } from "./python_json.ts";
import type { StaticActivationScale, TorchaoActivations } from "./torchao_activations.ts";
import type { Int4ChooseQParamsAlgorithm, Int4PackingFormat } from "./torchao_int4.ts";
import type { Float8DType, Granularity, MappingType, Scheme } from "./torchao_schemes.ts";

/** A config object of torchao: what weights become. */
export interface TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type: string;
  /** What it makes. */
  readonly scheme: Scheme;
  /** How activations are rounded; they stay float when absent. */
  readonly activations?: TorchaoActivations;
  /** The scale of activations, where it is known before. */
  readonly activationScale?: StaticActivationScale | null;
  /** A layer whose rows or columns this does not divide stays dense. */
  readonly multipleOf?: number;
  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue };
}

/** Int8WeightOnlyConfig of torchao: symmetric int8 per row unless told otherwise. */
export class Int8WeightOnlyConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Int8WeightOnlyConfig";
  /** What it makes. */
  readonly scheme: Scheme;

  /** `granularity`: "row" (default), "tensor", or a number of columns. */
  constructor({ granularity = "row" }: { granularity?: Granularity } = {}) {
    this.scheme = { kind: "int8", granularity: checkedGranularity(granularity) };
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { granularity } = this.scheme as Scheme & { kind: "int8" };
    const data = { group_size: null, granularity: granularityJson(granularity) };
    return object(this.type, 2, { ...data, set_inductor_config: true });
  }
}

/** What an Int4WeightOnlyConfig may be given; the names are torchao's in camelCase. */
export interface Int4WeightOnlyOptions {
  /** Columns that share a scale: 256, 128 (default), 64 or 32. */
  readonly groupSize?: number;
  /** Where the codes lie: "PLAIN" (default), "PLAIN_INT32" or "TILE_PACKED_TO_4D". */
  readonly int4PackingFormat?: Int4PackingFormat;
  /** "TINYGEMM" (default): from the range of a group; "HQQ": zeros searched for, only for tiles. */
  readonly int4ChooseQparamsAlgorithm?: Int4ChooseQParamsAlgorithm;
}

/** Int4WeightOnlyConfig of torchao: int4 with a zero per group. */
export class Int4WeightOnlyConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Int4WeightOnlyConfig";
  /** What it makes. */
  readonly scheme: Scheme;

  /** Throws `quantization_config`, or `unsupported` for a packing that no checkpoint holds. */
  constructor(options: Int4WeightOnlyOptions = {}) {
    const { groupSize = 128, int4PackingFormat: packing = "PLAIN" } = options;
    const { int4ChooseQparamsAlgorithm: algorithm = "TINYGEMM" } = options;
    if (![256, 128, 64, 32].includes(groupSize)) {
      throw invalid("group_size", groupSize, "256, 128, 64 or 32");
    }
    expectOneOf("int4_packing_format", packing, INT4_PACKINGS);
    expectOneOf("int4_choose_qparams_algorithm", algorithm, INT4_ALGORITHMS);
    if (algorithm === "HQQ" && packing !== "TILE_PACKED_TO_4D") {
      throw invalid("int4_packing_format", packing, "TILE_PACKED_TO_4D, the only one for HQQ");
    }
    this.scheme = { kind: "int4", groupSize, packing, algorithm };
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { groupSize, packing, algorithm } = this.scheme as Scheme & { kind: "int4" };
    return object(this.type, 2, {
      group_size: groupSize,
      set_inductor_config: true,
      int4_packing_format: tag("Int4PackingFormat", packing),
      int4_choose_qparams_algorithm: tag("Int4ChooseQParamsAlgorithm", algorithm),
      int4_tile_packed_ntile: 8,
    });
  }
}

/** IntxWeightOnlyConfig of torchao: 1 to 8 bits, with an integer zero point where asymmetric. */
export class IntxWeightOnlyConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "IntxWeightOnlyConfig";
  /** What it makes. */
  readonly scheme: Scheme;

  /** `weightDtype`: "int1" to "int8" (default); `granularity`: "row" (default) or a number of columns. */
  constructor(
    { weightDtype = "int8", granularity = "row", mappingType = "SYMMETRIC" }: {
      weightDtype?: string;
      granularity?: Granularity;
      mappingType?: MappingType;
    } = {},
  ) {
    const bits = Number(/^int([1-8])$/.exec(plainText(weightDtype))?.[1]);
    if (!(bits >= 1)) throw invalid("weight_dtype", weightDtype, "int1 to int8");
    if (!MAPPING_TYPES.includes(mappingType)) {
      throw invalid("mapping_type", mappingType, MAPPING_TYPES.join(", "));
    }
    if (granularity === "tensor") throw invalid("granularity", granularity, "row or a group size");
    const group = checkedGranularity(granularity);
    this.scheme = { kind: "intx", bits, granularity: group, mapping: mappingType };
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { bits, granularity, mapping } = this.scheme as Scheme & { kind: "intx" };
    const axis = { _type: "PerAxis", _version: 1, _data: { axis: 0 } };
    return object(this.type, 2, {
      weight_dtype: tag("torch.dtype", `int${bits}`),
      granularity: granularity === "row" ? axis : granularityJson(granularity),
      mapping_type: tag("MappingType", mapping),
      scale_dtype: null,
      intx_packing_format: tag("IntxPackingFormat", "UNPACKED_TO_INT8"),
      intx_choose_qparams_algorithm: tag("IntxChooseQParamsAlgorithm", "AFFINE"),
    });
  }
}

/** Float8WeightOnlyConfig of torchao: e4m3 or e5m2 per row unless told otherwise. */
export class Float8WeightOnlyConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "Float8WeightOnlyConfig";
  /** What it makes. */
  readonly scheme: Scheme;

  /** `weightDtype`: "float8_e4m3fn" (default) or "float8_e5m2"; `granularity`: "row" (default) or "tensor". */
  constructor(
    { weightDtype = "float8_e4m3fn", granularity = "row" }: {
      weightDtype?: Float8DType;
      granularity?: Granularity;
    } = {},
  ) {
    if (weightDtype !== "float8_e4m3fn" && weightDtype !== "float8_e5m2") {
      throw invalid("weight_dtype", weightDtype, "float8_e4m3fn or float8_e5m2");
    }
    const group = checkedGranularity(granularity);
    this.scheme = { kind: "float8", dtype: weightDtype, granularity: group };
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { dtype, granularity } = this.scheme as Scheme & { kind: "float8" };
    return object(this.type, 2, {
      weight_dtype: tag("torch.dtype", dtype),
      set_inductor_config: true,
      granularity: granularityJson(granularity),
    });
  }
}

/** FPXWeightOnlyConfig of torchao up to 0.14: small floats of 3 to 7 bits, a scale per row. */
export class FPXWeightOnlyConfig implements TorchAoQuantType {
  /** torchao's name of the class. */
  readonly type = "FPXWeightOnlyConfig";
  /** What it makes. */
  readonly scheme: Scheme;

  /** Bits of the exponent and of the mantissa; fp6 is 3 and 2. */
  constructor(ebits: number, mbits: number) {
    const width = ebits + mbits + 1;
    const valid = Number.isInteger(ebits) && Number.isInteger(mbits) && ebits >= 1 && mbits >= 1 &&
      width <= 7;
    if (!valid) throw invalid("ebits, mbits", `${ebits}, ${mbits}`, "3 to 7 bits with the sign");
    this.scheme = { kind: "floatx", format: floatxFormat(ebits, mbits) };
  }

  /** torchao's dictionary. */
  toDict(): { readonly [key: string]: JsonValue } {
    const { exponentBits, mantissaBits } = (this.scheme as Scheme & { kind: "floatx" }).format;
    const data = { ebits: exponentBits, mbits: mantissaBits, set_inductor_config: true };
    return object(this.type, 1, data);
  }
}

/** All packings that a checkpoint may have. */
export const INT4_PACKINGS: readonly Int4PackingFormat[] = [
  "PLAIN",
  "PLAIN_INT32",
  "TILE_PACKED_TO_4D",
];
const INT4_ALGORITHMS: readonly Int4ChooseQParamsAlgorithm[] = ["TINYGEMM", "HQQ"];

const MAPPING_TYPES: readonly MappingType[] = [
  "SYMMETRIC",
  "SYMMETRIC_NO_CLIPPING_ERR",
  "ASYMMETRIC",
];

/** Columns per group of uintNwo. */
const UINTX_GROUP = 64;

/** The config object of a name that Diffusers took until 2026. Throws `quantization_config`, `unsupported`. */
export function quantTypeOfName(
  name: string,
  kwargs: Readonly<Record<string, unknown>> = {},
): TorchAoQuantType {
  const groupSize = kwargs.group_size as number | undefined;
  const uintx = /^uint([1-7])wo$/.exec(name);
  const floatx = /^fp[3-7]_e(\d)w(\d)$/.exec(name);
  if (uintx) return uintxType(Number(uintx[1]), groupSize);
  if (floatx) return new FPXWeightOnlyConfig(Number(floatx[1]), Number(floatx[2]));
  if (/^fp[3-7]$/.test(name)) return bareFpx(Number(name[2]));
  switch (name) {
    case "int4wo":
    case "int4_weight_only":
      return new Int4WeightOnlyConfig({ groupSize });
    case "int8wo":
    case "int8_weight_only":
      return new Int8WeightOnlyConfig({ granularity: groupSize });
    case "float8wo": // e5m2, surprisingly; float8_weight_only is e4m3
    case "float8wo_e5m2":
      return new Float8WeightOnlyConfig({ weightDtype: "float8_e5m2" });
    case "float8_weight_only":
    case "float8wo_e4m3":
      return new Float8WeightOnlyConfig();
  }
  throw invalid(
    "quant_type",
    name,
    "int8wo, int4wo, uint1wo to uint7wo, float8wo_e4m3, fp3 to fp7, int8dq, int4dq, float8dq ...",
  );
}

/**
 * uintNwo: torchao has since made UIntXWeightOnlyConfig into this, with the same numbers and codes that
 * begin at -2^(N-1) instead of 0.
 */
function uintxType(bits: number, granularity: number = UINTX_GROUP): TorchAoQuantType {
  return new IntxWeightOnlyConfig({
    weightDtype: `int${bits}`,
    granularity,
    mappingType: "ASYMMETRIC",
  });
}

/** fpN: the bits without the sign are halved, the exponent getting the odd one. */
function bareFpx(bits: number): TorchAoQuantType {
  const exponentBits = Math.floor(bits / 2);
  return new FPXWeightOnlyConfig(exponentBits, bits - 1 - exponentBits);
}

type Json = Readonly<Record<string, unknown>>;

/** The config object of torchao's dictionary. Throws `quantization_config`, `unsupported`. */
export function quantTypeOfDict(dict: Json): TorchAoQuantType {
  const type = dict._type;
  const data = (dict._data ?? {}) as Json;
  switch (type) {
    case "Int8WeightOnlyConfig":
      if (data.group_size !== null && data.group_size !== undefined) {
        throw invalid("group_size", data.group_size, "null; use granularity PerGroup");
      }
      return new Int8WeightOnlyConfig({ granularity: granularityOfJson(data.granularity) });
    case "Int4WeightOnlyConfig":
      return int4OfData(data);
    case "IntxWeightOnlyConfig":
      expectTag(data, "intx_packing_format", "UNPACKED_TO_INT8");
      expectTag(data, "intx_choose_qparams_algorithm", "AFFINE");
      if (data.scale_dtype) throw invalid("scale_dtype", tagOf(data.scale_dtype), "null");
      return new IntxWeightOnlyConfig({
        weightDtype: tagOf(data.weight_dtype) as string | undefined,
        granularity: granularityOfJson(data.granularity),
        mappingType: tagOf(data.mapping_type) as MappingType | undefined,
      });
    case "Float8WeightOnlyConfig":
      return new Float8WeightOnlyConfig({
        weightDtype: tagOf(data.weight_dtype) as Float8DType | undefined,
        granularity: granularityOfJson(data.granularity),
      });
    case "FPXWeightOnlyConfig":
      return new FPXWeightOnlyConfig(plainNumber(data.ebits), plainNumber(data.mbits));
    case "UIntXWeightOnlyConfig":
      return uintxType(Number(plainText(tagOf(data.dtype)).slice(-1)), numberOf(data.group_size));
  }
  throw invalid("quant_type", type, "a config of torchao that is known here");
}

function int4OfData(data: Json): TorchAoQuantType {
  expectNumber(data, "int4_tile_packed_ntile", 8);
  return new Int4WeightOnlyConfig({
    groupSize: numberOf(data.group_size),
    int4PackingFormat: nameOf(data.int4_packing_format) as Int4PackingFormat | undefined,
    int4ChooseQparamsAlgorithm: nameOf(data.int4_choose_qparams_algorithm) as undefined,
  });
}

/** An entry of an enumeration as torchao spells it; its values are the same in small letters. */
function nameOf(value: unknown): string | undefined {
  const found = tagOf(value);
  return found === undefined ? undefined : plainText(found).toUpperCase();
}

function expectNumber(data: Json, field: string, expected: number): void {
  const found = numberOf(data[field]) ?? expected;
  if (found !== expected) throw unsupported(field, found, `${expected}`);
}

/** A number, or undefined where there is none. */
export function numberOf(value: unknown): number | undefined {
  return value === undefined || value === null ? undefined : plainNumber(value);
}

/** What shares a scale, as torchao's dictionaries say it. */
export function granularityOfJson(value: unknown): Granularity | undefined {
  if (value === undefined || value === null) return undefined;
  const { _type: type, _data: data } = value as { _type?: string; _data?: Json };
  if (type === "PerTensor") return "tensor";
  if (type === "PerRow" && (data?.dim === undefined || plainNumber(data.dim) === -1)) return "row";
  if (type === "PerAxis" && plainNumber(data?.axis ?? 0) === 0) return "row";
  if (type === "PerGroup") return plainNumber(data?.group_size);
  throw invalid("granularity", type ?? value, "PerRow, PerTensor, PerGroup or PerAxis(0)");
}

/** The dictionary of a granularity. */
export function granularityJson(granularity: Granularity): JsonValue {
  if (granularity === "row") return { _type: "PerRow", _version: 1, _data: { dim: -1 } };
  if (granularity === "tensor") return { _type: "PerTensor", _version: 1, _data: {} };
  return { _type: "PerGroup", _version: 1, _data: { group_size: granularity } };
}

function checkedGranularity(granularity: Granularity): Granularity {
  const isName = granularity === "row" || granularity === "tensor";
  if (isName || (Number.isInteger(granularity) && granularity > 0)) return granularity;
  throw invalid("granularity", granularity, "row, tensor or a number of columns");
}

/** Throws `unsupported` where an entry of an enumeration is another than the one we have. */
export function expectTag(data: Json, field: string, expected: string): void {
  const found = tagOf(data[field]);
  if (found === undefined || plainText(found).toUpperCase() === expected) return;
  throw unsupported(field, found, expected);
}

function expectOneOf(field: string, found: string, expected: readonly string[]): void {
  if (!expected.includes(found)) throw unsupported(field, found, expected.join(", "));
}

function unsupported(field: string, found: unknown, expected: string): HalftoneError {
  return new HalftoneError("unsupported", "Cannot use a torchao config", {
    field,
    found,
    expected,
  });
}

/** What stands in a tagged value. */
export function tagOf(value: unknown): unknown {
  return typeof value === "object" && value !== null ? (value as Json)._data : value ?? undefined;
}

/** An entry of an enumeration. */
export function tag(type: string, data: string): JsonValue {
  return { _type: type, _data: data };
}

/** A config object's dictionary. */
export function object(type: string, version: number, data: JsonValue) {
  return { _type: type, _version: version, _data: data };
}

/** A config that torchao would refuse. */
export function invalid(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use a torchao config";
  return new HalftoneError("quantization_config", message, { field, found, expected });
}
