/**
 * NVIDIA ModelOpt's weights, byte for byte (torch/quantization/qtensor), computed in the weight's type:
 *
 *     FP8    scale = amax / 448, q = w / scale
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
import { encodeGroups, groupRanges, magnitudes } from "./groups.ts";
import type { ModelOptType } from "./modelopt_config.ts";
import type { Pause } from "./pause.ts";
import { type Rounder, rounderOf, roundToEven } from "./rounding.ts";
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
const E2M1_BOUNDS = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5];

/** What a quantizer makes: one code per byte, and the buffers. */
export interface ModelOptCodes {
  readonly codes: Uint8Array;
  readonly buffers: ReadonlyMap<string, HostTensor>;
}

/** Weights per scale, and scales per scale of scales. */
export interface ModelOptBlocks {
  readonly groupSize: number;
  /** Whether groups are blocks of columns, even where a block is a row. */
  readonly isBlock: boolean;
  readonly scaleBlock: number;
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
  const amax = magnitudes(await groupRanges(name, dense, groupSize, pause));
  const encoder = encoderOf(type, dense, amax, blocks);
  const codes = await encodeGroups(dense, groupSize, pause, encoder.encode);
  return { codes, buffers: encoder.buffers };
}

interface Encoder {
  readonly buffers: ReadonlyMap<string, HostTensor>;
  encode(group: number, values: Float32Array, codes: Uint8Array): void;
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
  const scale = amax.map((size) => round(size / (type === "FP8" ? 448 : 127)));
  const shape = scaleShape(dense.shape, amax.length);
  const buffers = new Map([
    ["_amax", isBlock ? tensor(amax, [amax.length, 1]) : tensor(amax, shape).cast(dense.dtype)],
    ["_scale", tensor(scale, shape).cast(dense.dtype)],
  ]);
  const encode: Encoder["encode"] = type === "FP8"
    ? (group, values, codes) => {
      const scaled = values.map((value) => value === 0 ? value : round(value / scale[group]));
      codes.set(fromFloat32("float8_e4m3fn", scaled));
    }
    : (group, values, codes) => {
      for (let index = 0; index < values.length; index++) {
        const quotient = roundToEven(round(values[index] / scale[group]));
        codes[index] = (Number.isNaN(quotient) ? 0 : clamp(quotient, -128, 127)) + 128;
      }
    };
  return { buffers, encode };
}

/** [] for one scale, [rows, groups of a row] else. */
function scaleShape([rows]: Shape, groups: number): Shape {
  return groups === 1 ? [] : [rows, groups / rows];
}

function int4Encoder(dense: HostTensor, amax: Float32Array): Encoder {
  const round = rounderOf(dense.dtype);
  const inverse = amax.map((size) => round(7 * round(1 / size)));
  const buffers = new Map([
    ["_amax", tensor(amax, [amax.length, 1])],
    ["_scale", tensor(inverse, [amax.length, 1]).cast(dense.dtype)],
  ]);
  const encode: Encoder["encode"] = (group, values, codes) => {
    for (let index = 0; index < values.length; index++) {
      const scaled = roundToEven(round(values[index] * inverse[group]));
      codes[index] = Number.isNaN(scaled) ? 0 : clamp(scaled, -8, 7) + 8;
    }
  };
  return { buffers, encode };
}

function nf4Encoder(dense: HostTensor, amax: Float32Array, scaleBlock: number): Encoder {
  const round = rounderOf(dense.dtype);
  const table = MODELOPT_NF4.map(round);
  const buffers = new Map([
    ["_amax", tensor(amax, [amax.length, 1])],
    ...doubleScales(amax, scaleBlock, dense, round),
  ]);
  const encode: Encoder["encode"] = dense.dtype === "bfloat16"
    ? (group, values, codes) => encodeNf4Bfloat16(values, amax[group], round, codes)
    : (group, values, codes) => {
      for (let index = 0; index < values.length; index++) {
        codes[index] = nearest(table, round(values[index] / amax[group]), round);
      }
    };
  return { buffers, encode };
}

let nf4Bfloat16: Uint8Array | null = null;

/** bfloat16 quotients are few enough for a table by their bits. */
function encodeNf4Bfloat16(
  values: Float32Array,
  amax: number,
  round: Rounder,
  codes: Uint8Array,
): void {
  nf4Bfloat16 ??= nf4CodesOfBfloat16(round);
  const quotients = new Float32Array(values.length);
  for (let index = 0; index < values.length; index++) {
    quotients[index] = round(values[index] / amax);
  }
  const bits = new Uint32Array(quotients.buffer);
  for (let index = 0; index < bits.length; index++) codes[index] = nf4Bfloat16[bits[index] >>> 16];
}

function nf4CodesOfBfloat16(round: Rounder): Uint8Array {
  const sample = new Uint32Array(1);
  const value = new Float32Array(sample.buffer);
  return Uint8Array.from({ length: 2 ** 16 }, (_, half) => {
    sample[0] = half << 16;
    return nearest(MODELOPT_NF4, value[0], round);
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
  const centred = padded.map((scale) => round(scale - zero));
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
  const largest = amax.reduce((a, b) => Math.max(a, b), 0);
  const outer = fround(largest / (6 * 448));
  const inner = fromFloat32("float8_e4m3fn", amax.map((size) => blockScale(size, outer)));
  const scale = toFloat32("float8_e4m3fn", inner).map((value) => value * outer);
  const [rows, columns] = dense.shape;
  const buffers = new Map([
    ["_amax", tensor(amax, [amax.length, 1])],
    ["_global_amax", tensor(Float32Array.of(largest), [])],
    ["_scale", new HostTensor("float8_e4m3fn", [rows, amax.length / rows], inner)],
    ["_double_scale", tensor(Float32Array.of(outer), [])],
  ]);
  const encode: Encoder["encode"] = (group, values, codes) => {
    for (let index = 0; index < values.length; index++) {
      codes[index] = columns > 0 ? e2m1Code(fround(values[index] / scale[group])) : 0;
    }
  };
  return { buffers, encode };
}

/** A block of zeros has scale 1; so has a tensor of zeros, where ModelOpt gets NaN. */
function blockScale(size: number, outer: number): number {
  const scale = outer === 0 ? 0 : fround(size / fround(6 * outer));
  return clamp(scale === 0 ? 1 : scale, 2 ** -9, 448);
}

/** The nearest e2m1 code; ties go up at 0.75, 1.75 and 3.5 and down elsewhere. */
function e2m1Code(value: number): number {
  if (Number.isNaN(value)) return 0;
  const size = Math.abs(value);
  let code = 0;
  while (code < E2M1_BOUNDS.length && E2M1_BOUNDS[code] < size) code++;
  if (size === 0.75 || size === 1.75 || size === 3.5) code++;
  return code + (value < 0 ? 8 : 0);
}

function tensor(values: Float32Array, shape: Shape): HostTensor {
  return HostTensor.fromFloat32(values, shape);
}

function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}
