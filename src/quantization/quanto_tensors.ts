/**
 * optimum-quanto's weights, byte for byte: everything is computed in the weight's own type.
 *
 *     int8, float8   scale = absmax / 127 (448) per row; q = w / scale
 *     int4, int2     scale = (max - min) / 15 (3), shift = -min per group; q = (w + shift) / scale;
 *                    w = scale * q - shift
 *
 * A group is 128 columns (less, in steps of 32, where that does not divide), or a row of at most 128. In a
 * state dict:
 *
 *     X.weight._data        int8 or float8 [rows, columns]
 *     X.weight._data._data  uint8: the groups as rows of a matrix, cut into 2 (4) parts that share bytes
 *     X.weight._scale       [rows, 1], or [groups, 1] with X.weight._shift likewise
 *     X.input_scale, X.output_scale   scalars, 1 for weight-only models
 */

import { HalftoneError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, sameShape, type Shape } from "../tensor/shape.ts";
import { SMALL_FLOATS } from "../tensor/small_float.ts";
import { packCodes, unpackCodes } from "./codes.ts";
import { type CodeRule, type EncodeRule, float8Codes, integerCodes } from "./encode_rule.ts";
import { checkFinite } from "./float_slices.ts";
import { encodeGroups, type GroupRanges, groupRanges, magnitudes, mapGroups } from "./groups.ts";
import type { Pause } from "./pause.ts";
import { pythonJson } from "./python_json.ts";
import type { QuantizedLayout, ScaleLayout } from "./quantized_tensor.ts";
import {
  type EncodedWeight,
  moduleOf,
  type NamedTensor,
  type PieceReader,
  type PutBytes,
  type StreamedTensor,
  type TensorReader,
  type WrittenTensor,
} from "./quantizer.ts";
import type { QuantoDType } from "./quanto_config.ts";
import { floatTypeOf, type Rounder, rounderOf } from "./rounding.ts";
import { flipSigns, streamCodes } from "./stored_codes.ts";
import { float8Table, scaleType, tableLayout } from "./torchao_schemes.ts";

/** Columns per group, unless they do not divide. */
const GROUP = 128;
const LEAST_GROUP = 32;
const FLOAT8_MAX = 448;

/** Columns that share a scale below 8 bits (QModuleMixin.__init__). */
export function quantoGroupSize(columns: number): number {
  if (columns <= GROUP) return columns;
  let group = GROUP;
  while (columns % group !== 0 && group > LEAST_GROUP) group -= 32;
  return columns % group === 0 ? group : columns;
}

/** The layout of a weight. */
export function quantoLayout(kind: QuantoDType, shape: Shape, dtype: DType): QuantizedLayout {
  const scale: ScaleLayout = { kind: "float", dtype: scaleType(dtype) };
  const columns = shape[1];
  if (kind === "float8") return tableLayout(8, float8Table("float8_e4m3fn"), columns, scale);
  if (kind === "int8") {
    const value = { kind: "integer", zeroPoint: 128 } as const;
    return { bits: 8, value, groupSize: columns, scale, offset: null };
  }
  const bits = kind === "int4" ? 4 : 2;
  const value = { kind: "integer", zeroPoint: 0 } as const;
  return { bits, value, groupSize: quantoGroupSize(columns), scale, offset: scale };
}

/** Quantizes a dense matrix; throws `non_finite_weight` naming `name`. */
export async function quantizeQuanto(
  kind: QuantoDType,
  name: string,
  dense: HostTensor,
  pause: Pause,
): Promise<EncodedWeight> {
  const { dtype } = dense;
  const shape = [dense.shape[0], dense.shape[1]] as const;
  const layout = quantoLayout(kind, shape, dtype);
  const ranges = await groupRanges(name, dense, layout.groupSize, pause);
  const round = rounderOf(dtype);
  const { scale, offset } = parameters(kind, layout.bits, ranges, round);
  const { groupSize, bits } = layout;
  const rule: EncodeRule = {
    rounding: floatTypeOf(dtype),
    operation: "divide",
    factor: scale,
    code: codeRule(kind, bits, offset),
  };
  const codes = await encodeGroups(name, dense, { groupSize, bits, rule }, pause);
  const typed = (values: Float32Array) => ({
    kind: "float" as const,
    values: HostTensor.fromFloat32(values).cast(scaleType(dtype)),
  });
  return {
    dtype,
    tensor: {
      shape,
      layout,
      codes,
      scale: typed(scale),
      offset: layout.offset && typed(offset),
    },
  };
}

/** Scales and offsets (the negated shifts) of all groups. */
function parameters(kind: QuantoDType, bits: number, ranges: GroupRanges, round: Rounder) {
  const { min, max } = ranges;
  if (kind === "int4" || kind === "int2") {
    const scale = mapGroups(min, (low, group) => round(round(max[group] - low) / (2 ** bits - 1)));
    return { scale, offset: min };
  }
  const limit = kind === "int8" ? 127 : FLOAT8_MAX;
  return { scale: mapGroups(magnitudes(ranges), (size) => round(size / limit)), offset: min };
}

/** 0 / 0 is NaN in Quanto's float8; here it is 0. */
function codeRule(kind: QuantoDType, bits: number, offset: Float32Array): CodeRule {
  if (kind === "float8") return float8Codes(SMALL_FLOATS.float8_e4m3fn, FLOAT8_MAX);
  if (kind === "int8") return integerCodes(-128, 127);
  return integerCodes(0, 2 ** bits - 1, { shift: mapGroups(offset, (low) => -low) });
}

/** The weight in its own type, every step rounded to it; null where float32 arithmetic is the same. */
export function dequantizeQuanto({ tensor, dtype }: EncodedWeight): HostTensor | null {
  const { shape, layout, scale, offset } = tensor;
  if (!offset || offset.kind !== "float" || scale.kind !== "float") return null;
  const round = rounderOf(dtype);
  const scales = scale.values.toFloat32(), offsets = offset.values.toFloat32();
  const codes = unpackCodes(tensor.codes, layout.bits, elementCount(shape));
  const weights = new Float32Array(codes.length);
  for (let index = 0; index < codes.length; index++) {
    const group = Math.floor(index / layout.groupSize);
    weights[index] = round(codes[index] * scales[group]) + offsets[group];
  }
  return HostTensor.fromFloat32(weights, shape).cast(dtype);
}

/** The tensors of a weight as a frozen QLinear saves them. */
export function writeQuanto(
  name: string,
  { tensor, dtype, verbatim }: EncodedWeight,
): NamedTensor[] {
  const { shape, layout, codes, scale, offset } = tensor;
  if (scale.kind !== "float") {
    throw new HalftoneError("unsupported", "Cannot write coded scales as Quanto", { tensor: name });
  }
  const column = (values: HostTensor) => values.reshape([values.size, 1]);
  const parts = offset?.kind === "float"
    ? [
      { name: `${name}._data._data`, tensor: packedTensor(codes, shape, layout) },
      { name: `${name}._scale`, tensor: column(scale.values) },
      { name: `${name}._shift`, tensor: column(negated(offset.values)) },
    ]
    : [
      { name: `${name}._data`, tensor: byteTensor(codes, shape, layout) },
      {
        name: `${name}._scale`,
        tensor: shape[0] === 1 ? scale.values.reshape([]) : column(scale.values),
      },
    ];
  const one = HostTensor.fromFloat32(Float32Array.of(1), []).cast(dtype);
  const scales = ["input_scale", "output_scale"].map((suffix) => {
    return { name: `${moduleOf(name)}.${suffix}`, tensor: verbatim?.get(suffix) ?? one };
  });
  return [...parts, ...scales];
}

function byteTensor(codes: Uint8Array, shape: Shape, { value }: QuantizedLayout): HostTensor {
  if (value.kind === "table") {
    return new HostTensor(
      value.table[1] === 2 ** -16 ? "float8_e5m2" : "float8_e4m3fn",
      shape,
      codes,
    );
  }
  return new HostTensor("int8", shape, codes.map((code) => code ^ 128));
}

/** Group r of the matrix [groups, group size] shares its bytes with group r + parts, and so on. */
function packedTensor(packed: Uint8Array, shape: Shape, layout: QuantizedLayout): HostTensor {
  const { bits, groupSize } = layout;
  const codes = unpackCodes(packed, bits, elementCount(shape));
  const rows = Math.ceil(codes.length / groupSize / (8 / bits));
  const bytes = new Uint8Array(rows * groupSize);
  for (let index = 0; index < codes.length; index++) {
    const part = Math.floor(index / bytes.length);
    bytes[index - part * bytes.length] |= codes[index] << (bits * part);
  }
  return new HostTensor("uint8", [rows, groupSize], bytes);
}

function unpacked(bytes: Uint8Array, count: number, bits: number): Uint8Array {
  const codes = new Uint8Array(count);
  const mask = 2 ** bits - 1;
  for (let index = 0; index < count; index++) {
    const part = Math.floor(index / bytes.length);
    codes[index] = bytes[index - part * bytes.length] >> (bits * part) & mask;
  }
  return packCodes(codes, bits);
}

/** The same values with the other sign, zeros included. */
function negated(tensor: HostTensor): HostTensor {
  return HostTensor.fromFloat32(tensor.toFloat32().map((value) => -value), tensor.shape)
    .cast(tensor.dtype);
}

/** Whether the checkpoint holds this weight as Quanto saves it. */
export function isQuantoWeight(name: string, checkpoint: TensorReader): boolean {
  return checkpoint.entries.has(`${name}._data`) || checkpoint.entries.has(`${name}._data._data`);
}

/** The weight that a stored part belongs to; the name itself when it is no part. */
export function quantoWeightOf(tensor: string): string {
  return tensor.replace(/(\._data){1,2}$/, "");
}

/** Whether a stored tensor accompanies the codes of a weight. */
export function isQuantoCompanion(tensor: string, checkpoint: TensorReader): boolean {
  const part = /^(.*)\.(_scale|_shift)$/.exec(tensor);
  if (part) return isQuantoWeight(part[1], checkpoint);
  const scale = /^(.*)\.(input_scale|output_scale)$/.exec(tensor);
  return scale !== null && isQuantoWeight(`${scale[1]}.weight`, checkpoint);
}

/** How a stored weight is laid out, from the headers alone. Throws `missing_tensor`, `tensor_shape_mismatch`. */
export function describeQuanto(
  name: string,
  checkpoint: TensorReader,
  bits: 2 | 4,
): { shape: readonly [number, number]; layout: QuantizedLayout; dtype: DType } {
  const scale = entryOf(`${name}._scale`, checkpoint);
  const dtype = scale.dtype;
  if (dtype !== "float32" && dtype !== "bfloat16" && dtype !== "float16") {
    throw mismatch(`${name}._scale`, dtype, "float32, bfloat16 or float16");
  }
  const plain = checkpoint.entries.get(`${name}._data`);
  if (plain) {
    const kind = plain.dtype === "int8" ? "int8" : "float8";
    if (kind === "float8" && !plain.dtype.startsWith("float8")) {
      throw mismatch(`${name}._data`, plain.dtype, "int8 or float8");
    }
    if (plain.shape.length !== 2) {
      throw mismatch(`${name}._data`, `[${plain.shape}]`, "[rows, columns]");
    }
    const [rows, columns] = plain.shape;
    if (!sameShape(scale.shape, rows === 1 ? [] : [rows, 1])) {
      throw mismatch(`${name}._scale`, `[${scale.shape}]`, `[${rows}, 1]`);
    }
    const layout = quantoLayout(kind, plain.shape, dtype);
    const isE5m2 = plain.dtype === "float8_e5m2";
    const table = isE5m2
      ? tableLayout(8, float8Table("float8_e5m2"), columns, layout.scale)
      : layout;
    return { shape: [rows, columns], layout: table, dtype };
  }
  return describePacked(name, checkpoint, bits, dtype);
}

/**
 * What the file's header says of packed weights without a bias; Quanto itself would not know their rows
 * from the file.
 */
export function quantoMetadata(tensors: readonly WrittenTensor[]): Record<string, string> {
  const names = new Set(tensors.map(({ name }) => name));
  const alone = tensors.filter(({ name, quantized }) => {
    return quantized && !names.has(`${moduleOf(name)}.bias`);
  });
  return Object.fromEntries(alone.map(({ name, shape }) => [name, pythonJson({ shape })]));
}

function rowsOfMetadata(text: string | undefined): number | undefined {
  const rows = /^\{"shape": \[([1-9]\d{0,9}), \d+\]\}$/.exec(text ?? "")?.[1];
  return rows === undefined ? undefined : Number(rows);
}

/** Quanto stores no shape of packed weights: the bias gives the rows, or our metadata; else a group is a row. */
function describePacked(name: string, checkpoint: TensorReader, bits: 2 | 4, dtype: DType) {
  const data = entryOf(`${name}._data._data`, checkpoint);
  const shift = entryOf(`${name}._shift`, checkpoint);
  const scale = entryOf(`${name}._scale`, checkpoint);
  const [groups] = scale.shape;
  const groupSize = data.shape[1];
  const expected = [Math.ceil(groups / (8 / bits)), groupSize];
  if (data.dtype !== "uint8" || data.shape.length !== 2 || !sameShape(data.shape, expected)) {
    const found = `${data.dtype} [${data.shape}]`;
    throw mismatch(`${name}._data._data`, found, `uint8 [${expected}] for ${groups} groups`);
  }
  if (!sameShape(scale.shape, [groups, 1]) || !sameShape(shift.shape, [groups, 1])) {
    throw mismatch(`${name}._shift`, `[${shift.shape}]`, `[${groups}, 1]`);
  }
  if (shift.dtype !== dtype) throw mismatch(`${name}._shift`, shift.dtype, dtype);
  const rows = checkpoint.entries.get(`${moduleOf(name)}.bias`)?.shape[0] ??
    rowsOfMetadata(checkpoint.metadata?.[name]) ?? groups;
  if (groups % rows !== 0) {
    throw mismatch(`${name}._scale`, `${groups} groups`, `a multiple of ${rows}`);
  }
  const shape = [rows, groups / rows * groupSize] as const;
  const layout = { ...quantoLayout(bits === 4 ? "int4" : "int2", shape, dtype), groupSize };
  return { shape, layout, dtype };
}

/** Reads a stored weight, whose codes go to `put`; null for packed ones, which lie in another order. */
export async function streamQuanto(
  name: string,
  checkpoint: PieceReader,
  put: PutBytes,
  bits: 2 | 4,
): Promise<StreamedTensor | null> {
  const { shape, layout } = describeQuanto(name, checkpoint, bits);
  if (layout.offset !== null) return null;
  const values = await readFloats(`${name}._scale`, checkpoint);
  await activationScales(name, checkpoint); // which must be finite, though nothing needs them
  const change = layout.value.kind === "table" ? null : flipSigns;
  await streamCodes(`${name}._data`, checkpoint, put, { change });
  return { shape, layout, scale: { kind: "float", values }, offset: null };
}

async function readFloats(name: string, checkpoint: TensorReader): Promise<HostTensor> {
  const tensor = await checkpoint.read(name);
  checkFinite({ start: 0, values: tensor.toFloat32() }, name);
  return tensor.reshape([tensor.size]);
}

/** Reads a stored weight. */
export async function readQuanto(
  name: string,
  checkpoint: TensorReader,
  bits: 2 | 4,
): Promise<EncodedWeight> {
  const { shape, layout, dtype } = describeQuanto(name, checkpoint, bits);
  const read = (suffix: string) => readFloats(`${name}.${suffix}`, checkpoint);
  const scale = { kind: "float" as const, values: await read("_scale") };
  const verbatim = await activationScales(name, checkpoint);
  if (layout.offset === null) {
    const { bytes } = await checkpoint.read(`${name}._data`);
    const codes = layout.value.kind === "table" ? bytes : bytes.map((byte) => byte ^ 128);
    return { dtype, verbatim, tensor: { shape, layout, codes, scale, offset: null } };
  }
  const { bytes } = await checkpoint.read(`${name}._data._data`);
  const codes = unpacked(bytes, elementCount(shape), layout.bits);
  const offset = { kind: "float" as const, values: negated(await read("_shift")) };
  return { dtype, verbatim, tensor: { shape, layout, codes, scale, offset } };
}

async function activationScales(
  name: string,
  checkpoint: TensorReader,
): Promise<ReadonlyMap<string, HostTensor>> {
  const scales = new Map<string, HostTensor>();
  for (const suffix of ["input_scale", "output_scale"]) {
    const tensor = `${moduleOf(name)}.${suffix}`;
    if (checkpoint.entries.has(tensor)) scales.set(suffix, await checkpoint.read(tensor));
  }
  return scales;
}

function entryOf(tensor: string, checkpoint: TensorReader) {
  const entry = checkpoint.entries.get(tensor);
  if (entry) return entry;
  throw new HalftoneError("missing_tensor", "Cannot read a Quanto weight", {
    tensor,
    remedy: "The checkpoint is incomplete; save it again with Diffusers or halftone quantize",
  });
}

function mismatch(tensor: string, found: string, expected: string): HalftoneError {
  const message = "Cannot read a Quanto weight";
  return new HalftoneError("tensor_shape_mismatch", message, { tensor, found, expected });
}
