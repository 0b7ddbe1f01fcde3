/**
 * NVIDIA ModelOpt's weights, byte for byte (torch/quantization/qtensor), computed in the weight's type:
 *
 *     FP8    scale = amax / 448, q = w / scale; amax by "max" or by the search of modelopt_mse.ts
 *     INT8   scale = amax / 127, q = round(w / scale)
 *     INT4   scale = 7 / amax (an inverse), q = round(w * scale); w = q / scale
 *     NF4    s = amax; a table of 4 decimals, not bitsandbytes'; s is rounded to 8 bits around its mean
 *     NVFP4  s2 = amax / 2688 of all, s = e4m3(amax / (6 s2)) per block; e2m1 codes of w / (s s2)
 *
 * A number over a tensor is a product with its reciprocal in PyTorch, rounded twice. Whatever a TensorQuantizer keeps beside the weight are its buffers, by their names there.
 */

import { fromFloat32, toFloat32 } from "../tensor/convert.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { SMALL_FLOATS } from "../tensor/small_float.ts";
import {
  type CodeRule,
  type EncodeRule,
  float8Codes,
  floatxCodes,
  integerCodes,
} from "./encode_rule.ts";
import { FLOATX_FORMATS } from "./floatx.ts";
import { encodeGroups, groupRanges, magnitudes, mapGroups } from "./groups.ts";
import type { ModelOptAlgorithm, ModelOptType } from "./modelopt_config.ts";
import { mseAmax } from "./modelopt_mse.ts";
import type { Pause } from "./pause.ts";
import { floatTypeOf, type Rounder, rounderOf, roundToEven } from "./rounding.ts";
import { torchMean } from "./torch_mean.ts";

const fround = Math.fround;

/** NF4 as ModelOpt rounds it: four decimals, in bfloat16. */
export const MODELOPT_NF4: Float32Array = Float32Array.from(
  [
    [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0],
    [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1],
  ].flat(),
  rounderOf("bfloat16"),
);

/** e2m1, whose negative zero is zero here. */
export const E2M1: Float32Array = Float32Array.from(
  [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6],
);

/** What a quantizer makes: packed codes, and the buffers. */
export interface ModelOptCodes {
  readonly codes: Uint8Array;
  readonly buffers: ReadonlyMap<string, HostTensor>;
}

/** Weights per scale, scales per scale of scales, and what the first are of. */
export interface ModelOptBlocks {
  readonly groupSize: number;
  /** Whether groups are blocks of columns, even where a block is a row. */
  readonly isBlock: boolean;
  readonly scaleBlock: number;
  /** How the ranges of FP8 are found. */
  readonly algorithm: ModelOptAlgorithm;
}

/** Quantizes a dense matrix; throws `non_finite_weight` naming `name`. */
export async function encodeModelOpt(
  type: ModelOptType,
  name: string,
  dense: HostTensor,
  blocks: ModelOptBlocks,
  pause: Pause,
): Promise<ModelOptCodes> {
  const { groupSize } = blocks;
  const largest = magnitudes(await groupRanges(name, dense, groupSize, pause));
  const amax = blocks.algorithm === "mse"
    ? await mseAmax(dense, largest, groupSize, pause)
    : largest;
  const { rule, buffers } = encoderOf(type, dense, amax, blocks);
  const bits = type === "FP8" || type === "INT8" ? 8 : 4;
  return { codes: await encodeGroups(name, dense, { groupSize, bits, rule }, pause), buffers };
}

interface Encoder {
  readonly buffers: ReadonlyMap<string, HostTensor>;
  readonly rule: EncodeRule;
}

function encoderOf(
  type: ModelOptType,
  dense: HostTensor,
  amax: Float32Array,
  { isBlock, scaleBlock }: ModelOptBlocks,
): Encoder {
  switch (type) {
    case "FP8":
    case "INT8":
      return byteEncoder(type, dense, amax, isBlock);
    case "INT4":
      return int4Encoder(dense, amax);
    case "NF4":
      return nf4Encoder(dense, amax, scaleBlock);
    case "NVFP4":
      return nvfp4Encoder(dense, amax);
  }
}

function byteEncoder(
  type: "FP8" | "INT8",
  dense: HostTensor,
  amax: Float32Array,
  isBlock: boolean,
): Encoder {
  const round = rounderOf(dense.dtype);
  const scale = mapGroups(amax, (size) => round(size / (type === "FP8" ? 448 : 127)));
  const shape = scaleShape(dense.shape, amax.length);
  const blockAmax = tensor(amax, [amax.length, 1]); // float32 for integers only
  const ownAmax = (isBlock ? blockAmax : tensor(amax, shape)).cast(dense.dtype);
  const buffers = new Map([
    ["_amax", isBlock && type === "INT8" ? blockAmax : ownAmax],
    ["_scale", tensor(scale, shape).cast(dense.dtype)],
  ]);
  const code = type === "FP8" ? float8Codes(SMALL_FLOATS.float8_e4m3fn) : integerCodes(-128, 127);
  return { buffers, rule: ruleOf(dense, "divide", scale, code) };
}

function ruleOf(
  { dtype }: HostTensor,
  operation: EncodeRule["operation"],
  factor: Float32Array,
  code: CodeRule,
): EncodeRule {
  return { rounding: floatTypeOf(dtype), operation, factor, code };
}

/** [] for one scale, [rows, groups of a row] else. */
function scaleShape([rows]: Shape, groups: number): Shape {
  return groups === 1 ? [] : [rows, groups / rows];
}

function int4Encoder(dense: HostTensor, amax: Float32Array): Encoder {
  const round = rounderOf(dense.dtype);
  const inverse = mapGroups(amax, (size) => round(7 * round(1 / size)));
  const buffers = new Map([
    ["_amax", tensor(amax, [amax.length, 1])],
    ["_scale", tensor(inverse, [amax.length, 1]).cast(dense.dtype)],
  ]);
  const code = integerCodes(-8, 7, { nanIsZero: false }); // zeros times infinity, as PyTorch casts NaN
  return { buffers, rule: ruleOf(dense, "multiply", inverse, code) };
}

function nf4Encoder(dense: HostTensor, amax: Float32Array, scaleBlock: number): Encoder {
  const round = rounderOf(dense.dtype);
  const table = MODELOPT_NF4.map(round);
  const buffers = new Map([
    ["_amax", tensor(amax, [amax.length, 1])],
    ...doubleScales(amax, scaleBlock, dense, round),
  ]);
  const bounds = nearestBounds(table, round);
  const code = { kind: "levels", bounds, order: Uint8Array.from(table.keys()) } as const;
  return { buffers, rule: ruleOf(dense, "divide", amax, code) };
}

/** The largest numbers of float32 that are not yet nearer to the next entry; found by halving. */
function nearestBounds(table: Float32Array, round: Rounder): Float32Array {
  return table.slice(1).map((_, code) => {
    let [low, high] = [table[code], table[code + 1]];
    for (;;) {
      const middle = fround((low + high) / 2);
      if (middle === low || middle === high) return low;
      if (nearest(table, middle, round) <= code) low = middle;
      else high = middle;
    }
  });
}

/** The first entry at the least distance; 0 for NaN, as torch's argmin. */
function nearest(table: Float32Array, value: number, round: Rounder): number {
  let best = 0;
  let least = Infinity;
  for (let code = 0; code < table.length; code++) {
    const distance = Math.abs(round(value - table[code]));
    if (distance < least) {
      least = distance;
      best = code;
    }
  }
  return best;
}

/** NF4QTensor.double_quantization: 8-bit scales, padded with zeros to whole blocks. */
function doubleScales(
  amax: Float32Array,
  scaleBlock: number,
  { dtype }: HostTensor,
  round: Rounder,
): [string, HostTensor][] {
  const blocks = Math.ceil(amax.length / scaleBlock);
  const padded = new Float32Array(blocks * scaleBlock);
  padded.set(amax);
  const zero = round(torchMean(padded));
  const centred = mapGroups(padded, (scale) => round(scale - zero));
  const factors = new Float32Array(blocks);
  const codes = new Int8Array(padded.length);
  for (let block = 0; block < blocks; block++) {
    const part = centred.subarray(block * scaleBlock, (block + 1) * scaleBlock);
    const size = part.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    factors[block] = round(127 * round(1 / size));
    part.forEach((value, index) => {
      const scaled = roundToEven(round(value * factors[block]));
      codes[block * scaleBlock + index] = Number.isNaN(scaled) ? 0 : clamp(scaled, -127, 127);
    });
  }
  return [
    ["_scale", new HostTensor("int8", [blocks, scaleBlock], new Uint8Array(codes.buffer))],
    ["_double_scale", tensor(factors, [blocks]).cast(dtype)],
    ["_scale_zeros", tensor(Float32Array.of(zero), []).cast(dtype)],
  ];
}

/** The float scales that NF4's buffers stand for, as ModelOpt dequantizes them. */
export function nf4Scales(buffers: ReadonlyMap<string, HostTensor>, groups: number): Float32Array {
  const [codes, factors, zeros] = ["_scale", "_double_scale", "_scale_zeros"]
    .map((name) => buffers.get(name)!);
  const round = rounderOf(zeros.dtype);
  const values = codes.toFloat32(), factor = factors.toFloat32(), zero = zeros.toFloat32()[0];
  const scaleBlock = codes.shape[1];
  return Float32Array.from({ length: groups }, (_, group) => {
    return round(round(values[group] / factor[Math.floor(group / scaleBlock)]) + zero);
  });
}

function nvfp4Encoder(dense: HostTensor, amax: Float32Array): Encoder {
  let largest = 0;
  for (let group = 0; group < amax.length; group++) largest = Math.max(largest, amax[group]);
  const outer = fround(largest / (6 * 448));
  const inner = fromFloat32("float8_e4m3fn", mapGroups(amax, (size) => blockScale(size, outer)));
  const scale = mapGroups(toFloat32("float8_e4m3fn", inner), (value) => value * outer);
  const [rows] = dense.shape;
  const buffers = new Map([
    ["_amax", tensor(amax, [amax.length, 1])],
    ["_global_amax", tensor(Float32Array.of(largest), [])],
    ["_scale", new HostTensor("float8_e4m3fn", [rows, amax.length / rows], inner)],
    ["_double_scale", tensor(Float32Array.of(outer), [])],
  ]);
  const rule: EncodeRule = {
    rounding: "float32",
    operation: "divide",
    factor: scale,
    code: floatxCodes(FLOATX_FORMATS.fp4, false),
  };
  return { buffers, rule };
}

/** A block of zeros has scale 1; so has a tensor of zeros, where ModelOpt gets NaN. */
function blockScale(size: number, outer: number): number {
  const scale = outer === 0 ? 0 : fround(size / fround(6 * outer));
  return clamp(scale === 0 ? 1 : scale, 2 ** -9, 448);
}

function tensor(values: Float32Array, shape: Shape): HostTensor {
  return HostTensor.fromFloat32(values, shape);
}

function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}
