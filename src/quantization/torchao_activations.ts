/**
 * How torchao rounds the activations of its layers, as a weight's metadata says it: act_quant_kwargs of
 * Int8Tensor and Float8Tensor, activation_quantization of IntxUnpackedToInt8Tensor. The arithmetic is that
 * of torchao 0.18 for float32 activations (quant_primitives.py); for bfloat16 it would round the scales to
 * bfloat16 first.
 */

import { HalftoneError } from "../errors.ts";
import type { QuantizedActivations } from "../ops/activation_mode.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { plainText } from "./plain_values.ts";
import { JsonNumber, type JsonValue } from "./python_json.ts";
import { FLOAT8_MAX, type Float8DType } from "./torchao_schemes.ts";

/** What shares a scale. */
export type ActivationGranularity = "row" | "tensor";

/** The mappings of activations. */
export type ActivationMapping = "SYMMETRIC" | "ASYMMETRIC";

/** Rounding of activations, by the class of the weight. */
export type TorchaoActivations =
  | {
    readonly kind: "int8";
    readonly granularity: ActivationGranularity;
    readonly mapping: ActivationMapping;
    /** Seven bits, so that 16-bit sums of products do not overflow. */
    readonly reduceRange: boolean;
  }
  /** Asymmetric int8 per token. */
  | { readonly kind: "int8_asym_per_token" }
  | {
    readonly kind: "float8";
    readonly dtype: Float8DType;
    readonly granularity: ActivationGranularity;
    /** The least absmax that counts, or null. */
    readonly lowerBound: number | null;
  };

/** A scale that is stored with a weight. */
export interface StaticActivationScale {
  /** What a code is worth. */
  readonly scale: number;
  /** The code that means 0. */
  readonly zero: number;
}

/** What follows the module's name in the names of stored scales and zero points of activations. */
export const ACTIVATION_SCALE = "_weight_act_quant_scale";
export const ACTIVATION_ZERO = "_weight_act_quant_zero_point";

/** torch.finfo(torch.float32): the least scale of Int8Tensor, and of the others. */
const EPSILON = 2 ** -23;
const SMALLEST_NORMAL = 2 ** -126;

/** The mode of the linear op. */
export function torchaoMode(
  activations: TorchaoActivations,
  fixed: StaticActivationScale | null = null,
): QuantizedActivations {
  if (activations.kind === "float8") return float8Mode(activations);
  const perToken = activations.kind === "int8_asym_per_token";
  const reduced = !perToken && activations.reduceRange;
  const [lowest, highest] = reduced ? [-64, 63] : [-128, 127];
  const isSymmetric = !perToken && activations.mapping === "SYMMETRIC";
  return {
    kind: "quantized",
    dtype: "int8",
    granularity: perToken ? "row" : activations.granularity,
    lowest,
    highest,
    scale: fixed ? { kind: "static", ...fixed, inverse: Math.fround(1 / fixed.scale) } : {
      kind: "dynamic",
      mapping: isSymmetric ? "symmetric" : "asymmetric",
      levels: isSymmetric ? (highest - lowest) / 2 : highest - lowest,
      least: perToken ? SMALLEST_NORMAL : EPSILON,
      rounding: "reciprocal",
    },
  };
}

function float8Mode(
  { dtype, granularity, lowerBound }: TorchaoActivations & { kind: "float8" },
): QuantizedActivations {
  const highest = FLOAT8_MAX[dtype];
  return {
    kind: "quantized",
    dtype,
    granularity,
    lowest: -highest,
    highest,
    scale: {
      kind: "dynamic",
      mapping: "symmetric",
      levels: highest,
      least: lowerBound === null ? 0 : Math.fround(lowerBound / highest),
      rounding: "quotient",
    },
  };
}

/** The dictionary of act_quant_kwargs, or the text of activation_quantization. */
export function activationsJson(activations: TorchaoActivations): JsonValue {
  if (activations.kind === "int8_asym_per_token") return activations.kind;
  const granularity = activations.granularity === "row"
    ? object("PerRow", { dim: -1 })
    : object("PerTensor", {});
  if (activations.kind === "int8") {
    const { mapping, reduceRange } = activations;
    return object("QuantizeTensorToInt8Kwargs", {
      granularity,
      mapping_type: object("MappingType", mapping),
      reduce_range: reduceRange,
    });
  }
  return object("QuantizeTensorToFloat8Kwargs", {
    float8_dtype: object("torch.dtype", activations.dtype),
    granularity,
    mm_config: null,
    hp_value_lb: activations.lowerBound === null ? null : JsonNumber.float(activations.lowerBound),
    hp_value_ub: null,
    kernel_preference: object("KernelPreference", "AUTO"),
  });
}

type Json = Readonly<Record<string, unknown>>;

/** What the metadata of a weight says; null when activations stay float. Throws `unsupported`. */
export function storedActivations(tensor: string, data: Json): TorchaoActivations | null {
  const perToken = data.activation_quantization ?? null;
  const kwargs = data.act_quant_kwargs ?? null;
  if (perToken !== null) {
    const kind = "int8_asym_per_token";
    const text = plainText(isObject(perToken) ? perToken._data : perToken).toLowerCase();
    if (text === kind) return { kind };
    throw unsupported(tensor, "activation_quantization", perToken, kind);
  }
  return kwargs === null ? null : activationsOfKwargs(tensor, kwargs);
}

function activationsOfKwargs(tensor: string, kwargs: unknown): TorchaoActivations {
  const { _type: type, _data: data } = isObject(kwargs) ? kwargs : {};
  if (!isObject(data)) throw unsupported(tensor, "act_quant_kwargs", kwargs, "_type and _data");
  const granularity = granularityOf(tensor, data.granularity);
  if (type === "QuantizeTensorToInt8Kwargs") {
    const mapping = oneOf(tensor, "mapping_type", data.mapping_type, ["SYMMETRIC", "ASYMMETRIC"]);
    return { kind: "int8", granularity, mapping, reduceRange: data.reduce_range === true };
  }
  if (type === "QuantizeTensorToFloat8Kwargs") {
    if ((data.hp_value_ub ?? null) !== null) {
      throw unsupported(tensor, "hp_value_ub", data.hp_value_ub, "null");
    }
    const dtype = oneOf(tensor, "float8_dtype", data.float8_dtype, FLOAT8_TYPES);
    return { kind: "float8", dtype, granularity, lowerBound: boundOf(tensor, data.hp_value_lb) };
  }
  throw unsupported(
    tensor,
    "act_quant_kwargs",
    type,
    "QuantizeTensorToInt8Kwargs or QuantizeTensorToFloat8Kwargs",
  );
}

const FLOAT8_TYPES = ["float8_e4m3fn", "float8_e5m2"] as const;

/** The scale in the stored tensors of a weight; null where there is none. Throws `unsupported`. */
export function staticScale(
  tensor: string,
  parts: ReadonlyMap<string, HostTensor>,
): StaticActivationScale | null {
  const scale = oneNumber(tensor, ACTIVATION_SCALE, parts);
  if (scale === null) return null;
  // A scale whose reciprocal overflows rounds nothing.
  if (scale > 0 && Math.fround(1 / scale) < Infinity) {
    return { scale, zero: oneNumber(tensor, ACTIVATION_ZERO, parts) ?? 0 };
  }
  throw unsupported(tensor, ACTIVATION_SCALE, scale, "a positive number");
}

function oneNumber(
  tensor: string,
  suffix: string,
  parts: ReadonlyMap<string, HostTensor>,
): number | null {
  const part = parts.get(suffix);
  if (part === undefined) return null;
  if (part.size === 1) return part.toFloat32()[0];
  throw unsupported(tensor, suffix, `[${part.shape}]`, "one number");
}

/** The tensors of a static scale, [1, 1], as torchao stores them. */
export function staticScaleParts(
  { scale, zero }: StaticActivationScale,
  mapping: ActivationMapping,
): [string, HostTensor][] {
  const scales = HostTensor.fromFloat32(Float32Array.of(scale), [1, 1]);
  if (mapping === "SYMMETRIC") return [[ACTIVATION_SCALE, scales]];
  const zeros = new HostTensor("int8", [1, 1], Uint8Array.of(zero));
  return [[ACTIVATION_SCALE, scales], [ACTIVATION_ZERO, zeros]];
}

function granularityOf(tensor: string, value: unknown): ActivationGranularity {
  const { _type: type, _data: data } = isObject(value) ? value : {};
  const dim = isObject(data) ? data.dim ?? -1 : -1;
  if (type === "PerTensor") return "tensor";
  if (type === "PerRow" && dim === -1) return "row";
  throw unsupported(tensor, "granularity", value, "PerRow or PerTensor");
}

function boundOf(tensor: string, value: unknown): number | null {
  const bound = value ?? null;
  if (bound === null || (typeof bound === "number" && bound >= 0 && bound < 2 ** 127)) return bound;
  throw unsupported(tensor, "hp_value_lb", value, "a number of at least 0, or null");
}

function oneOf<Name extends string>(
  tensor: string,
  field: string,
  value: unknown,
  names: readonly Name[],
): Name {
  const text = isObject(value) ? value._data : value;
  const found = names.find((name) => name === text);
  if (found) return found;
  throw unsupported(tensor, field, text, names.join(" or "));
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null;
}

function unsupported(
  tensor: string,
  field: string,
  found: unknown,
  expected: string,
): HalftoneError {
  return new HalftoneError("unsupported", "Cannot round activations as a torchao weight asks", {
    tensor,
    field,
    found: typeof found === "string" ? found : JSON.stringify(found)?.slice(0, 80),
    expected,
  });
}

function object(type: string, data: JsonValue): JsonValue {
  return { _type: type, _data: data };
}
