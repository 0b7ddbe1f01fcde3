/** A tensor in host memory: an element type, a shape and its bytes. */

import { HalftoneError } from "../errors.ts";
import { type DType, itemSize } from "./dtype.ts";
import { fromFloat32, toFloat32 } from "./convert.ts";
import { elementCount, type Shape } from "./shape.ts";

/** A contiguous row-major tensor; its bytes may lie in a SharedArrayBuffer. */
export class HostTensor {
  /** The element type. */
  readonly dtype: DType;
  /** The dimensions, outermost first. */
  readonly shape: Shape;
  /** The raw little-endian bytes, aligned to the element size. */
  readonly bytes: Uint8Array;

  /** Takes the bytes as they are; throws `invalid_argument` when their number does not fit. */
  constructor(dtype: DType, shape: Shape, bytes: Uint8Array) {
    const expected = elementCount(shape) * itemSize(dtype);
    if (bytes.byteLength !== expected) {
      throw new HalftoneError("invalid_argument", "Cannot view bytes as a tensor", {
        found: `${bytes.byteLength} bytes`,
        expected: `${expected} bytes for ${dtype} [${shape}]`,
      });
    }
    this.dtype = dtype;
    this.shape = shape;
    this.bytes = bytes.byteOffset % itemSize(dtype) === 0 ? bytes : bytes.slice();
  }

  /** A zero-filled tensor; `shared` puts it into a SharedArrayBuffer. */
  static zeros(dtype: DType, shape: Shape, options: { shared?: boolean } = {}): HostTensor {
    const length = elementCount(shape) * itemSize(dtype);
    const buffer = options.shared ? new SharedArrayBuffer(length) : new ArrayBuffer(length);
    return new HostTensor(dtype, shape, new Uint8Array(buffer));
  }

  /** A float32 tensor over (not a copy of) `values`. */
  static fromFloat32(values: Float32Array, shape: Shape = [values.length]): HostTensor {
    return new HostTensor("float32", shape, bytesOf(values));
  }

  /** An int32 tensor over (not a copy of) `values`. */
  static fromInt32(values: Int32Array, shape: Shape = [values.length]): HostTensor {
    return new HostTensor("int32", shape, bytesOf(values));
  }

  /** The number of elements. */
  get size(): number {
    return elementCount(this.shape);
  }

  /** The values as float32: a view when they are float32 already, else a converted copy. */
  toFloat32(): Float32Array {
    return toFloat32(this.dtype, this.bytes);
  }

  /** The values of an int32 tensor, as a view. */
  toInt32(): Int32Array {
    if (this.dtype !== "int32") {
      throw new HalftoneError("invalid_argument", "Cannot view as int32", { found: this.dtype });
    }
    return new Int32Array(this.bytes.buffer, this.bytes.byteOffset, this.size);
  }

  /** The same values in another float type, rounded to nearest even; itself when nothing changes. */
  cast(dtype: DType): HostTensor {
    if (dtype === this.dtype) return this;
    return new HostTensor(dtype, this.shape, fromFloat32(dtype, this.toFloat32()));
  }

  /** The same bytes under another shape of equal size. */
  reshape(shape: Shape): HostTensor {
    return new HostTensor(this.dtype, shape, this.bytes);
  }
}

function bytesOf(values: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
