/**
 * Dequantization of the one weight layout, the semantics of record: every product and sum is rounded to
 * float32, in the order the libraries use.
 *
 *     scale = value(code) * super + constant       (coded scales; float scales are stored)
 *     w     = (value(code) * scale) * multiplier + offset
 */

import { forEachGroup } from "./group_runs.ts";
import { unpackCodes } from "./codes.ts";
import { groupCount } from "./layout_bytes.ts";
import type {
  CodeValue,
  QuantizedLayout,
  QuantizedTensor,
  ScaleData,
  ScaleLayout,
} from "./quantized_tensor.ts";

const fround = Math.fround;

/** Codes unpacked at a time, so that a large tensor never exists as one code per byte. */
const CHUNK = 1 << 16;

/** All weights, row-major [rows * columns], float32. */
export function dequantize(tensor: QuantizedTensor): Float32Array {
  return dequantizeRows(tensor, 0, tensor.shape[0]);
}

/** The weights of rows [start, end), float32 [(end - start) * columns]. */
export function dequantizeRows(
  tensor: QuantizedTensor,
  start: number,
  end: number,
): Float32Array {
  const columns = tensor.shape[1];
  const weights = new Float32Array((end - start) * columns);
  const scales = decodeScales(tensor.layout.scale, tensor.scale, groupsOf(tensor));
  const offsets = tensor.layout.offset && tensor.offset
    ? decodeScales(tensor.layout.offset, tensor.offset, groupsOf(tensor))
    : null;
  const values = valueTable(tensor.layout.value, tensor.layout.bits);
  for (let done = 0; done < weights.length; done += CHUNK) {
    const chunk = weights.subarray(done, done + CHUNK);
    const first = start * columns + done;
    const codes = unpackCodes(tensor.codes, tensor.layout.bits, chunk.length, first);
    scaleValues(chunk, codes, values, first, tensor.layout, scales);
    if (offsets) addOffsets(chunk, first, tensor.layout.groupSize, offsets);
  }
  return weights;
}

/** The scales (or offsets) of all groups as float32 [groups], without a float scale's multiplier. */
export function decodeScales(layout: ScaleLayout, data: ScaleData, groups: number): Float32Array {
  if (layout.kind === "float" || data.kind === "float") {
    return data.kind === "float" ? data.values.toFloat32() : mismatched();
  }
  const values = valueTable(layout.value, layout.bits);
  const codes = unpackCodes(data.codes, layout.bits, groups);
  const supers = data.supers.toFloat32();
  const scales = new Float32Array(groups);
  for (let group = 0; group < groups; group++) {
    const product = values[codes[group]] * supers[Math.floor(group / layout.superGroupSize)];
    scales[group] = data.constant === 0 ? product : fround(product) + data.constant;
  }
  return scales;
}

/** What each of the 2^bits codes stands for, before its scale. */
export function valueTable(value: CodeValue, bits: number): Float32Array {
  if (value.kind === "table") return value.table;
  return Float32Array.from({ length: 1 << bits }, (_, code) => code - value.zeroPoint);
}

function groupsOf(tensor: QuantizedTensor): number {
  return groupCount(tensor.shape, tensor.layout);
}

function scaleValues(
  weights: Float32Array,
  codes: Uint8Array,
  values: Float32Array,
  first: number, // flat index of weights[0]
  layout: QuantizedLayout,
  scales: Float32Array,
): void {
  const multiplier = layout.scale.kind === "float" ? layout.scale.multiplier ?? 1 : 1;
  forEachGroup(first, weights.length, layout.groupSize, (group, begin, end) => {
    const scale = scales[group];
    if (multiplier === 1) {
      for (let index = begin; index < end; index++) weights[index] = values[codes[index]] * scale;
    } else {
      for (let index = begin; index < end; index++) {
        weights[index] = fround(values[codes[index]] * scale) * multiplier;
      }
    }
  });
}

function addOffsets(
  weights: Float32Array,
  first: number,
  groupSize: number,
  offsets: Float32Array,
): void {
  forEachGroup(first, weights.length, groupSize, (group, begin, end) => {
    const offset = offsets[group];
    for (let index = begin; index < end; index++) weights[index] += offset;
  });
}

function mismatched(): never {
  throw new TypeError("the scale data do not match their layout");
}
