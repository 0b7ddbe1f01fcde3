/** Walks a dense tensor slice by slice in float32, so that no whole float32 copy of it ever exists. */

import { HalftoneError } from "../errors.ts";
import { fromFloat32, toFloat32 } from "../tensor/convert.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import { firstNonFinite } from "../tensor/finite.ts";
import { HostTensor } from "../tensor/host_tensor.ts";

/** Elements of a slice at most (unless one unit is longer). */
const SLICE = 1 << 18;

/** A run of a tensor's elements. */
export interface FloatSlice {
  /** Flat index of the first element. */
  readonly start: number;
  readonly values: Float32Array;
}

/** Slices of whole `unit`s of elements (the last may be shorter), first rounded to `dtype`. */
export function* floatSlices(
  tensor: HostTensor,
  unit: number,
  dtype: DType = tensor.dtype,
): Generator<FloatSlice> {
  const length = Math.max(1, Math.floor(SLICE / unit)) * unit;
  const size = itemSize(tensor.dtype);
  for (let start = 0; start < tensor.size; start += length) {
    const bytes = tensor.bytes.subarray(start * size, (start + length) * size);
    yield { start, values: rounded(toFloat32(tensor.dtype, bytes), dtype, tensor.dtype) };
  }
}

/** Throws `non_finite_weight` naming the tensor and the first NaN or infinity. */
export function checkFinite(slice: FloatSlice, name: string, cause?: string): void {
  const index = firstNonFinite(HostTensor.fromFloat32(slice.values));
  if (index < 0) return;
  throw new HalftoneError(
    "non_finite_weight",
    `Cannot use a weight that is not finite${cause ?? ""}`,
    {
      tensor: name,
      found: `${slice.values[index]} at element ${slice.start + index}`,
      expected: "finite numbers",
      remedy: "The checkpoint is damaged or was saved after training diverged",
    },
  );
}

function rounded(values: Float32Array, dtype: DType, from: DType): Float32Array {
  return dtype === "float32" || dtype === from
    ? values
    : toFloat32(dtype, fromFloat32(dtype, values));
}
