/** An array as a function of its indices: views as they are defined, without offsets and strides. */

import { elementCount, type Shape } from "../../../src/tensor/shape.ts";

/** An array of numbers. */
export interface VirtualArray {
  readonly shape: Shape;
  at(index: readonly number[]): number;
}

/** The values in row-major order, as an array. */
export function fromValues(values: ArrayLike<number>, shape: Shape): VirtualArray {
  return {
    shape,
    at: (index) => values[index.reduce((flat, i, axis) => flat * shape[axis] + i, 0)],
  };
}

/** The row-major values. */
export function toValues(array: VirtualArray): Float64Array {
  return Float64Array.from(
    { length: elementCount(array.shape) },
    (_, flat) => array.at(indexOf(flat, array.shape)),
  );
}

/** Elements start..end of an axis. */
export function slice(a: VirtualArray, axis: number, start: number, end: number): VirtualArray {
  return {
    shape: a.shape.with(axis, end - start),
    at: (index) => a.at(index.with(axis, index[axis] + start)),
  };
}

/** Axes in another order. */
export function permute(a: VirtualArray, axes: readonly number[]): VirtualArray {
  return {
    shape: axes.map((axis) => a.shape[axis]),
    at: (index) => a.at(axes.map((_, axis) => index[axes.indexOf(axis)])),
  };
}

/** NumPy's broadcasting. */
export function broadcastTo(a: VirtualArray, shape: Shape): VirtualArray {
  const missing = shape.length - a.shape.length;
  return {
    shape,
    at: (index) => a.at(a.shape.map((size, axis) => size === 1 ? 0 : index[axis + missing])),
  };
}

/** The same elements under another shape. */
export function reshape(a: VirtualArray, shape: Shape): VirtualArray {
  const values = toValues(a);
  return fromValues(values, shape);
}

function indexOf(flat: number, shape: Shape): number[] {
  const index = new Array<number>(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return index;
}
