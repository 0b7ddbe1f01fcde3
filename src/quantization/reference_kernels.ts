/** The kernels that quantize in TypeScript: what they mean, and what runs where there is no WebAssembly. */

import { toFloat32 } from "../tensor/convert.ts";
import { packCodes } from "./codes.ts";
import type { CodeRule, EncodeRule, SmallFloatCodes } from "./encode_rule.ts";
import { quantizeBlocks } from "./gguf_quantizers.ts";
import { ggufTypeInfo } from "./gguf_types.ts";
import { forEachGroup } from "./group_runs.ts";
import { infiniteScale } from "./gguf_tensors.ts";
import {
  type BlocksJob,
  type EncodeJob,
  groupsOf,
  type KernelJob,
  LARGEST_BLOCK_VALUE,
  type NormalizeJob,
  placesOf,
  type QuantizeKernels,
  type RangesJob,
} from "./kernel_job.ts";
import { hqqTurn } from "./reference_hqq.ts";
import { rounderOf, roundToEven } from "./rounding.ts";

/** The kernels in TypeScript. */
export const REFERENCE_KERNELS: QuantizeKernels = { run };

function run(job: KernelJob, start: number, input: Uint8Array, result: Uint8Array): boolean {
  const { dtype, toFloat16 } = job.values;
  const floats = toFloat32(dtype, input.slice());
  const values = toFloat16 ? floats.map(rounderOf("float16")) : floats;
  const limit = job.kind === "blocks" ? LARGEST_BLOCK_VALUE : Number.MAX_VALUE;
  return write(job, start, values, result) && values.every((value) => Math.abs(value) <= limit);
}

function write(job: KernelJob, start: number, values: Float32Array, result: Uint8Array): boolean {
  switch (job.kind) {
    case "ranges":
      ranges(job, start, values, result);
      return true;
    case "encode":
      result.set(encode(job, start, values), start / 8 * job.bits);
      return true;
    case "normalize":
      normalize(job, start, values, result);
      return true;
    case "blocks":
      return blocks(job, start, values, result);
    case "hqq":
      hqqTurn(job, start, values, result);
      return true;
  }
}

function ranges({ groupSize }: RangesJob, start: number, values: Float32Array, result: Uint8Array) {
  const ends = new Float32Array(result.buffer, result.byteOffset, result.length / 4);
  const groups = groupsOf(groupSize, start, values.length);
  const place = placesOf(groups, start) - groups.first;
  forEachGroup(start, values.length, groupSize, (group, begin, end) => {
    let low = values[begin], high = values[begin];
    for (let index = begin; index < end; index++) {
      const value = values[index];
      if (value < low) low = value;
      if (value > high) high = value;
    }
    ends[place + group] = low;
    ends[ends.length / 2 + place + group] = high;
  });
}

function encode(job: EncodeJob, start: number, values: Float32Array): Uint8Array {
  const codes = new Uint8Array(values.length);
  forEachGroup(start, values.length, job.groupSize, (group, begin, end) => {
    const encoder = encoderOf(job.rule.code, group);
    for (let index = begin; index < end; index++) {
      codes[index] = encoder(scaled(job.rule, group, values[index]), values[index]);
    }
  });
  return packCodes(codes, job.bits);
}

function normalize(job: NormalizeJob, start: number, values: Float32Array, result: Uint8Array) {
  const { groupSize, least, code, bits } = job;
  const magnitudes = new Float32Array(result.buffer, result.byteOffset, job.groups);
  const factor = new Float32Array(job.groups);
  forEachGroup(start, values.length, groupSize, (group, begin, end) => {
    magnitudes[group] = Math.max(...values.subarray(begin, end).map(Math.abs));
    factor[group] = 1 / Math.max(magnitudes[group], Math.fround(least));
  });
  const rule = { rounding: "float32", operation: "multiply", factor, code } as const;
  const codes = encode({ ...job, kind: "encode", rule }, start, values);
  result.set(codes, 4 * job.groups + start / 8 * bits);
}

function scaled({ rounding, operation, factor, code }: EncodeRule, group: number, value: number) {
  const round = rounderOf(rounding);
  const shift = code.kind === "integer" ? code.shift : undefined;
  const shifted = shift ? round(value + shift[group]) : value;
  return round(operation === "multiply" ? shifted * factor[group] : shifted / factor[group]);
}

/** What makes a code of `y` and the value that it came from. */
function encoderOf(code: CodeRule, group: number): (y: number, value: number) => number {
  switch (code.kind) {
    case "integer": {
      const { low, high, origin, bias, zero, nanIsZero } = code;
      const offset = zero ? zero[group] : 0;
      return (y) => {
        if (Number.isNaN(y)) return (nanIsZero ? offset : low) - origin;
        const biased = bias ? Math.fround(y + bias[group]) : y;
        return Math.min(Math.max(roundToEven(biased) + offset, low), high) - origin;
      };
    }
    case "float":
      return (y, value) => {
        const number = Number.isNaN(y) ? 0 * value : y;
        return smallFloatCode(code, Math.min(Math.max(number, -code.limit), code.limit));
      };
    case "levels":
      return (y) => code.order[rankOf(y, code.bounds)];
  }
}

/** How many bounds lie below. */
function rankOf(y: number, bounds: Float32Array): number {
  let rank = 0;
  while (rank < 15 && bounds[rank] < y) rank++;
  return rank;
}

function smallFloatCode(code: SmallFloatCodes, y: number): number {
  const { mantissaBits, leastExponent, largestCode, signBit, signedZero } = code;
  const isNegative = y < 0 || (signedZero && Object.is(y, -0));
  const size = Math.abs(y);
  const exponent = Math.max(exponentOf(size), leastExponent);
  const steps = roundToEven(size * 2 ** (mantissaBits - exponent));
  const magnitude = (exponent - leastExponent) * 2 ** mantissaBits + steps;
  return Math.min(magnitude, largestCode) + (isNegative ? signBit : 0);
}

const float = new Float32Array(1);
const word = new Int32Array(float.buffer);

/** The exponent of a float32 that is not negative; the least one for subnormals and zero. */
function exponentOf(size: number): number {
  float[0] = size;
  return (word[0] >> 23) - 127;
}

function blocks({ type }: BlocksJob, start: number, values: Float32Array, result: Uint8Array) {
  const { elements, bytes } = ggufTypeInfo(type);
  const at = start / elements * bytes;
  const part = result.subarray(at, at + values.length / elements * bytes);
  quantizeBlocks(type, values, part);
  return infiniteScale(type, part) < 0;
}
