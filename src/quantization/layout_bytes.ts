/** Byte arithmetic of weights: honest sizes, with codes, scales, super-scales and tables. */

import { itemSize } from "../tensor/dtype.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import type { WeightFormat } from "../plan/plan.ts";
import { packedBytes } from "./codes.ts";
import type { CodeValue, QuantizedLayout, ScaleLayout } from "./quantized_tensor.ts";

/** Stored bytes of a weight of this shape in this format. */
export function weightBytes(shape: Shape, format: WeightFormat): number {
  return format.kind === "dense"
    ? elementCount(shape) * itemSize(format.dtype)
    : layoutBytes(shape, format.layout);
}

/** Stored bytes of a quantized weight: codes, scales, offsets and their tables. */
export function layoutBytes(shape: Shape, layout: QuantizedLayout): number {
  const groups = groupCount(shape, layout);
  return codeBytes(shape, layout) + tableBytes(layout.value) +
    scaleBytes(groups, layout.scale) + (layout.offset ? scaleBytes(groups, layout.offset) : 0);
}

/** Stored bytes of the codes alone. */
export function codeBytes(shape: Shape, { bits }: QuantizedLayout): number {
  return packedBytes(elementCount(shape), bits);
}

/** How many groups, each with its scale, a weight of this shape has. */
export function groupCount(shape: Shape, layout: QuantizedLayout): number {
  return Math.ceil(elementCount(shape) / layout.groupSize);
}

/** Bits per weight, everything included. */
export function bitsPerWeight(shape: Shape, format: WeightFormat): number {
  return weightBytes(shape, format) * 8 / elementCount(shape);
}

function scaleBytes(groups: number, scale: ScaleLayout): number {
  if (scale.kind === "float") return groups * itemSize(scale.dtype);
  const supers = Math.ceil(groups / scale.superGroupSize);
  return packedBytes(groups, scale.bits) + supers * itemSize(scale.superDtype) +
    tableBytes(scale.value);
}

function tableBytes(value: CodeValue): number {
  return value.kind === "table" ? value.table.byteLength : 0;
}
