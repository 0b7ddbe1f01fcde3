/**
 * The words that describe a weight's unit to the kernels. kernels-wasm/src/weight.rs reads them in this
 * order.
 */

import { elementCount } from "../../tensor/shape.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import type { QuantizedLayout, ScaleLayout } from "../../quantization/quantized_tensor.ts";
import {
  keptDtype,
  KERNEL_DTYPES,
  SCALE_KIND,
  type ScaleParts,
  type UnitLayout,
  unitLayout,
} from "../weight_unit.ts";

/** Words of a descriptor. */
export const DESCRIPTOR_WORDS = 33;

/** Fills a descriptor's words for a unit at `address`. */
export function describeWeight(weight: PlanWeight, address: number, words: Int32Array): void {
  const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
  const parts = unitLayout(weight);
  const rows = weight.shape[0];
  const columns = elementCount(weight.shape.slice(1));
  words.fill(0);
  words.set([0, 0, rows, columns, columns, address + parts.data]);
  if (weight.format.kind === "dense") {
    words[1] = KERNEL_DTYPES.indexOf(keptDtype(weight));
  } else {
    describeCodes(weight.format.layout, address, parts, words, floats);
  }
}

/** Fills a descriptor's words for a float32 matrix in the arena. */
export function describeMatrix(
  matrix: { address: number; rows: number; columns: number; stride: number },
  words: Int32Array,
): void {
  words.fill(0);
  words.set([0, 0, matrix.rows, matrix.columns, matrix.stride, matrix.address]);
}

function describeCodes(
  layout: QuantizedLayout,
  address: number,
  parts: UnitLayout,
  words: Int32Array,
  floats: Float32Array,
): void {
  words[0] = 1;
  words[6] = layout.bits;
  words[7] = layout.value.kind === "table" ? 1 : 0;
  floats[8] = layout.value.kind === "integer" ? layout.value.zeroPoint : 0;
  words[9] = address + parts.table;
  words[10] = layout.groupSize;
  describeScale(layout.scale, address, parts.scale, words.subarray(11), floats.subarray(11));
  describeScale(layout.offset, address, parts.offset, words.subarray(22), floats.subarray(22));
}

function describeScale(
  layout: ScaleLayout | null,
  address: number,
  parts: ScaleParts,
  words: Int32Array,
  floats: Float32Array,
): void {
  words[0] = SCALE_KIND[layout?.kind ?? "none"];
  floats[10] = 1;
  if (layout === null) return;
  words[2] = address + parts.data;
  if (layout.kind === "float") {
    words[1] = KERNEL_DTYPES.indexOf(layout.dtype);
    floats[10] = layout.multiplier ?? 1;
    return;
  }
  words[1] = KERNEL_DTYPES.indexOf(layout.superDtype);
  words[3] = layout.bits;
  words[4] = layout.value.kind === "table" ? 1 : 0;
  floats[5] = layout.value.kind === "integer" ? layout.value.zeroPoint : 0;
  words[6] = address + parts.table;
  words[7] = layout.superGroupSize;
  words[8] = address + parts.supers;
  words[9] = address + parts.constant;
}
