/**
 * torchao's weight formats: how each makes codes and scales, with the arithmetic of torchao 0.18 on a
 * CPU (quant_primitives.py): scales are computed in the weight's type.
 *
 *     int8    scale = absmax / 127.5, eps 2^-23, kept in float32; q = round(w * (1 / scale))
 *     intx    the same with scales in the weight's type; asymmetric ones have an integer zero point:
 *             w = (q - zero) * scale, here an offset of -zero * scale
 *     int4    scale = (max - min) / 15, zero = min + 8 scale, both in the weight's type; w = q scale + zero
 *     float8  scale = absmax / 448 (57344), q = w / scale
 *     fpx     the same with the range of the small float; scales in the weight's type
 *
 * A row of zeros gives 0 / 0 in float8: torchao stores NaN there, we store 0.
 */

import { toFloat32 } from "../tensor/convert.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { SMALL_FLOATS } from "../tensor/small_float.ts";
import { type EncodeRule, float8Codes, floatxCodes, integerCodes } from "./encode_rule.ts";
import { FLOATX_FORMATS, type FloatxFormat, floatxTable } from "./floatx.ts";
import { encodeGroups, type GroupRanges, groupRanges, magnitudes, mapGroups } from "./groups.ts";
import type { Pause } from "./pause.ts";
import type { QuantizedLayout, ScaleDType, ScaleLayout } from "./quantized_tensor.ts";
import type { EncodedWeight } from "./quantizer.ts";
import { floatTypeOf, rounderOf, roundToEven, smallestNormal } from "./rounding.ts";
import { chooseHqqParameters, MOST_INVERSE } from "./torchao_hqq.ts";
import {
  type Int4ChooseQParamsAlgorithm,
  type Int4PackingFormat,
  packScaleAndZero,
} from "./torchao_int4.ts";

const fround = Math.fround;

/** Weights that share a scale: a number of columns, whole rows, or all. */
export type Granularity = "row" | "tensor" | number;

/** How torchao chooses the range of integers. */
export type MappingType = "SYMMETRIC" | "SYMMETRIC_NO_CLIPPING_ERR" | "ASYMMETRIC";

/** The two types of 8-bit floats. */
export type Float8DType = "float8_e4m3fn" | "float8_e5m2";

/** A weight format of torchao. */
export type Scheme =
  | {
    readonly kind: "int8";
    readonly granularity: Granularity;
    /** Codes of seven bits, from -64 to 63. */
    readonly reduceRange?: boolean;
  }
  | {
    readonly kind: "intx";
    readonly bits: number;
    readonly granularity: Granularity;
    readonly mapping: MappingType;
  }
  | {
    readonly kind: "int4";
    readonly groupSize: number;
    readonly packing: Int4PackingFormat;
    readonly algorithm: Int4ChooseQParamsAlgorithm;
  }
  | { readonly kind: "float8"; readonly dtype: Float8DType; readonly granularity: Granularity }
  | { readonly kind: "floatx"; readonly format: FloatxFormat };

/** The largest finite values. */
export const FLOAT8_MAX: Readonly<Record<Float8DType, number>> = {
  float8_e4m3fn: 448,
  float8_e5m2: 57344,
};

/** torch.finfo(torch.float32).eps, the least scale of Int8Tensor. */
const INT8_EPSILON = 2 ** -23;

/** Weights per scale; null where the columns do not divide, and such a weight stays dense. */
export function groupSizeOf(shape: Shape, granularity: Granularity): number | null {
  const [rows, columns] = shape;
  if (granularity === "tensor") return rows * columns;
  if (granularity === "row") return columns;
  return columns % granularity === 0 ? granularity : null;
}

/** The layout of a weight of this shape and type; null where torchao leaves it dense. */
export function schemeLayout(scheme: Scheme, shape: Shape, dtype: DType): QuantizedLayout | null {
  if (shape.length !== 2) return null;
  const groupSize = groupSizeOf(shape, granularityOf(scheme));
  if (groupSize === null) return null;
  const own = floatScale(scaleType(sourceType(scheme, dtype)));
  switch (scheme.kind) {
    case "int8":
      return integerLayout(8, groupSize, FLOAT_SCALE, null);
    case "intx":
      return integerLayout(scheme.bits, groupSize, own, isAsymmetric(scheme) ? FLOAT_SCALE : null);
    case "int4":
      return scheme.packing === "PLAIN_INT32"
        ? unsignedLayout(groupSize, own)
        : integerLayout(4, groupSize, own, own);
    case "float8":
      return tableLayout(8, float8Table(scheme.dtype), groupSize, FLOAT_SCALE);
    case "floatx":
      return tableLayout(scheme.format.bits, floatxTable(scheme.format), groupSize, own);
  }
}

/** The type that weights are rounded to before: what the kernels of packed int4 compute in. */
function sourceType(scheme: Scheme, dtype: DType): DType {
  if (scheme.kind !== "int4" || scheme.packing === "PLAIN") return dtype;
  return scheme.packing === "PLAIN_INT32" && dtype === "float16" ? dtype : "bfloat16";
}

/** How many weights share a scale in this scheme. */
export function granularityOf(scheme: Scheme): Granularity {
  if (scheme.kind === "int4") return scheme.groupSize;
  return scheme.kind === "floatx" ? "row" : scheme.granularity;
}

/** Quantizes a dense matrix whose shape has a layout; throws `non_finite_weight` naming `name`. */
export async function quantizeScheme(
  scheme: Scheme,
  name: string,
  dense: HostTensor,
  pause: Pause,
): Promise<EncodedWeight> {
  const source = dense.cast(sourceType(scheme, dense.dtype));
  const { shape, dtype } = source;
  const layout = schemeLayout(scheme, shape, dtype)!;
  const { groupSize, bits } = layout;
  const ranges = await groupRanges(name, source, groupSize, pause);
  const { rule, ...made } = isHqq(scheme)
    ? await hqqCodec(name, source, groupSize, ranges, pause)
    : codec(scheme, ranges, dtype);
  const { scale, offset } = made;
  const codes = await encodeGroups(name, source, { groupSize, bits, rule }, pause);
  return {
    tensor: {
      shape: [shape[0], shape[1]],
      layout,
      codes,
      scale: { kind: "float", values: scalesAs(layout.scale, scale) },
      offset: layout.offset && {
        kind: "float",
        values: scalesAs(layout.offset, offset ?? new Float32Array(scale.length)),
      },
    },
    dtype,
    form: formOf(scheme),
    verbatim: verbatimOf(made, source, layout.groupSize),
  };
}

/** What follows the module's name in the name of the zero points. */
export const ZERO_POINT = "_weight_zero_point";

/** What follows it in the name of tinygemm's scales and zeros. */
export const SCALE_AND_ZERO = "_weight_scale_and_zero";

/** What torchao stores and the layout has not: integer zero points, and what pads tiles. */
function verbatimOf(
  { scale, offset, zeroPoint, padding }: Omit<Codec, "rule">,
  { shape }: HostTensor,
  groupSize: number,
): ReadonlyMap<string, HostTensor> | undefined {
  if (padding && offset) {
    const packed = packScaleAndZero(shape, groupSize, scale, offset, padding);
    return new Map([[SCALE_AND_ZERO, packed]]);
  }
  return zeroPoint && zeroPointTensor(zeroPoint, shape[0]);
}

/** torchao's class of each kind of scheme; fpx has none that safetensors may hold. */
export const FORMS: Readonly<Record<Exclude<Scheme["kind"], "int4"> | Int4PackingFormat, string>> =
  {
    int8: "Int8Tensor",
    intx: "IntxUnpackedToInt8Tensor",
    PLAIN: "Int4Tensor",
    PLAIN_INT32: "Int4PlainInt32Tensor",
    TILE_PACKED_TO_4D: "Int4TilePackedTo4dTensor",
    float8: "Float8Tensor",
    floatx: "FloatxTensor",
  };

/** torchao's class of a scheme's weights. */
export function formOf(scheme: Scheme): string {
  return FORMS[scheme.kind === "int4" ? scheme.packing : scheme.kind];
}

interface Codec {
  readonly scale: Float32Array;
  readonly offset?: Float32Array;
  readonly zeroPoint?: Float32Array;
  /** The scale and zero of groups that only pad a tile. */
  readonly padding?: readonly [number, number];
  readonly rule: EncodeRule;
}

function codec(scheme: Scheme, ranges: GroupRanges, dtype: DType): Codec {
  switch (scheme.kind) {
    case "int8":
      return int8Codec(scheme.reduceRange ? 64 : 128, ranges, dtype);
    case "intx":
      return intxCodec(scheme.bits, scheme.mapping, ranges, dtype);
    case "int4":
      return INT4_CODECS[scheme.packing](ranges, dtype);
    case "float8":
      return float8Codec(scheme.dtype, ranges, dtype);
    case "floatx":
      return floatxCodec(scheme.format, ranges, dtype);
  }
}

/** Codes from -`limit` to `limit` - 1. */
function int8Codec(limit: number, ranges: GroupRanges, dtype: DType): Codec {
  const round = rounderOf(dtype);
  const scale = mapGroups(
    magnitudes(ranges),
    (size) => Math.max(round(size / (limit - 0.5)), INT8_EPSILON),
  );
  const rule: EncodeRule = {
    rounding: "float32",
    operation: "multiply",
    factor: mapGroups(scale, (size) => 1 / size),
    code: integerCodes(-limit, limit - 1, { origin: -128 }),
  };
  return { scale, zeroPoint: new Float32Array(scale.length), rule };
}

function intxCodec(
  bits: number,
  mapping: MappingType,
  ranges: GroupRanges,
  dtype: DType,
): Codec {
  const round = rounderOf(dtype);
  const low = -(2 ** (bits - 1)), high = 2 ** (bits - 1) - 1;
  const scale = intxScales(mapping, ranges, low, high, dtype);
  const zeroPoint = mapping === "ASYMMETRIC"
    ? mapGroups(ranges.min, (min, group) => {
      return clamp(low - roundToEven(round(Math.min(min, 0) / scale[group])), low, high);
    })
    : new Float32Array(scale.length);
  const rule: EncodeRule = {
    rounding: floatTypeOf(dtype),
    operation: "multiply",
    factor: mapGroups(scale, (size) => round(1 / size)),
    code: integerCodes(low, high, { zero: zeroPoint }),
  };
  return { scale, zeroPoint, offset: offsetsOf(zeroPoint, scale), rule };
}

function intxScales(
  mapping: MappingType,
  { min, max }: GroupRanges,
  low: number,
  high: number,
  dtype: DType,
  least = smallestNormal(dtype),
): Float32Array {
  const round = rounderOf(dtype);
  return mapGroups(min, (minimum, group) => {
    const negative = Math.min(minimum, 0), positive = Math.max(max[group], 0);
    let scale = round(Math.max(-negative, positive) / ((high - low) / 2));
    if (mapping === "ASYMMETRIC") scale = round(round(positive - negative) / (high - low));
    if (mapping === "SYMMETRIC_NO_CLIPPING_ERR") {
      scale = Math.max(round(negative / low), round(positive / high));
    }
    return Math.max(scale, least);
  });
}

/** What an integer zero point adds to q * scale. */
export function offsetsOf(zeroPoint: Float32Array, scale: Float32Array): Float32Array {
  return mapGroups(zeroPoint, (zero, group) => zero === 0 ? 0 : -zero * scale[group]);
}

function int4Codec({ min, max }: GroupRanges, dtype: DType): Codec {
  const round = rounderOf(dtype);
  const exact = mapGroups(
    min,
    (low, group) => Math.max(fround(max[group] - low), fround(1e-6)) / 15,
  );
  const zero = mapGroups(min, (low, group) => low + fround(exact[group] * 8));
  const rule: EncodeRule = {
    rounding: "float32",
    operation: "divide",
    factor: exact,
    code: integerCodes(0, 15, { shift: mapGroups(min, (low) => -low) }),
  };
  return { scale: mapGroups(exact, round), offset: mapGroups(zero, round), rule };
}

/** Everything in the weight's type, bfloat16; the range need not hold 0. */
function tinygemmCodec({ min, max }: GroupRanges, dtype: DType): Codec {
  const round = rounderOf(dtype);
  const least = smallestNormal(dtype);
  const scale = mapGroups(
    min,
    (low, group) => Math.max(round(round(max[group] - low) / 15), least),
  );
  const offset = mapGroups(min, (low, group) => round(low + scale[group] * 8));
  const shift = mapGroups(offset, (middle, group) => -round(middle - scale[group] * 8));
  const rule: EncodeRule = {
    rounding: floatTypeOf(dtype),
    operation: "divide",
    factor: scale,
    code: integerCodes(0, 15, { shift }),
  };
  return { scale, offset, padding: [least, least * 8], rule };
}

function isHqq(scheme: Scheme): boolean {
  return scheme.kind === "int4" && scheme.algorithm === "HQQ";
}

/** Tiles whose zeros were searched for, in steps of a scale; tinygemm wants them as weights. */
async function hqqCodec(
  name: string,
  dense: HostTensor,
  groupSize: number,
  ranges: GroupRanges,
  pause: Pause,
): Promise<Codec> {
  const { inverse, zero } = await chooseHqqParameters(name, dense, groupSize, ranges, pause);
  const round = rounderOf(dense.dtype);
  const scale = mapGroups(inverse, (size) => 1 / size);
  const offset = mapGroups(zero, (steps, group) => round(fround(8 - steps) * scale[group]));
  const least = fround(1 / MOST_INVERSE);
  const rule: EncodeRule = {
    rounding: "float32",
    operation: "multiply",
    factor: inverse,
    code: integerCodes(0, 15, { bias: zero }),
  };
  return {
    scale: mapGroups(scale, round),
    offset,
    padding: [round(least), round(8 * least)],
    rule,
  };
}

/** Asymmetric with an integer zero point, codes 0 to 15. */
function plainInt32Codec(ranges: GroupRanges, dtype: DType): Codec {
  const round = rounderOf(dtype);
  const scale = intxScales("ASYMMETRIC", ranges, 0, 15, dtype, round(1e-6));
  const zeroPoint = mapGroups(ranges.min, (min, group) => {
    return clamp(-roundToEven(round(Math.min(min, 0) / scale[group])), 0, 15);
  });
  const rule: EncodeRule = {
    rounding: floatTypeOf(dtype),
    operation: "multiply",
    factor: mapGroups(scale, (size) => round(1 / size)),
    // An inverse beyond float16 times 0 is NaN, which PyTorch casts to 0.
    code: integerCodes(0, 15, { zero: zeroPoint, nanIsZero: false }),
  };
  return { scale, zeroPoint, offset: offsetsOf(zeroPoint, scale), rule };
}

const INT4_CODECS: Readonly<
  Record<Int4PackingFormat, (ranges: GroupRanges, dtype: DType) => Codec>
> = { PLAIN: int4Codec, PLAIN_INT32: plainInt32Codec, TILE_PACKED_TO_4D: tinygemmCodec };

function float8Codec(float8: Float8DType, ranges: GroupRanges, dtype: DType): Codec {
  const round = rounderOf(dtype);
  const limit = FLOAT8_MAX[float8];
  const scale = mapGroups(magnitudes(ranges), (size) => round(size / limit));
  const code = float8Codes(SMALL_FLOATS[float8], limit);
  return { scale, rule: { rounding: "float32", operation: "divide", factor: scale, code } };
}

function floatxCodec(format: FloatxFormat, ranges: GroupRanges, dtype: DType): Codec {
  const round = rounderOf(dtype);
  const scale = mapGroups(
    magnitudes(ranges),
    (size) => round(fround(Math.max(size, fround(1e-12)) / format.max)),
  );
  const code = floatxCodes(format);
  return { scale, rule: { rounding: "float32", operation: "divide", factor: scale, code } };
}

/** The scheme of one of torchao's small floats, 3 to 7 bits. */
export function floatxScheme(name: keyof typeof FLOATX_FORMATS): Scheme {
  return { kind: "floatx", format: FLOATX_FORMATS[name] };
}

/** The 256 values of an 8-bit float type. */
export function float8Table(dtype: Float8DType): Float32Array {
  return toFloat32(dtype, Uint8Array.from({ length: 256 }, (_, code) => code));
}

const FLOAT_SCALE: ScaleLayout = { kind: "float", dtype: "float32" };

function floatScale(dtype: ScaleDType): ScaleLayout {
  return { kind: "float", dtype };
}

/** The type of scales that are kept in the weight's type. */
export function scaleType(dtype: DType): ScaleDType {
  return dtype === "bfloat16" || dtype === "float16" ? dtype : "float32";
}

/** Integer codes of `bits` bits with the middle as zero. */
export function integerLayout(
  bits: number,
  groupSize: number,
  scale: ScaleLayout,
  offset: ScaleLayout | null,
): QuantizedLayout {
  return { bits, value: { kind: "integer", zeroPoint: 2 ** (bits - 1) }, groupSize, scale, offset };
}

/** 4-bit codes from 0, with an integer zero point for each group. */
export function unsignedLayout(groupSize: number, scale: ScaleLayout): QuantizedLayout {
  const value = { kind: "integer", zeroPoint: 0 } as const;
  return { bits: 4, value, groupSize, scale, offset: FLOAT_SCALE };
}

/** Codes that look values up. */
export function tableLayout(
  bits: number,
  table: Float32Array,
  groupSize: number,
  scale: ScaleLayout,
): QuantizedLayout {
  return { bits, value: { kind: "table", table }, groupSize, scale, offset: null };
}

function isAsymmetric(scheme: Scheme & { kind: "intx" }): boolean {
  return scheme.mapping === "ASYMMETRIC";
}

function scalesAs(layout: ScaleLayout, values: Float32Array): HostTensor {
  const dtype = layout.kind === "float" ? layout.dtype : "float32";
  return HostTensor.fromFloat32(values).cast(dtype);
}

/** The zero points as torchao stores them, int8 [rows, groups of a row] ([1, 1] for a whole tensor). */
function zeroPointTensor(values: Float32Array, rows: number): ReadonlyMap<string, HostTensor> {
  const shape = values.length % rows === 0 ? [rows, values.length / rows] : [1, 1];
  const bytes = new Uint8Array(new Int8Array(values).buffer);
  return new Map([[ZERO_POINT, new HostTensor("int8", shape, bytes)]]);
}

function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}
