/** Weights must be finite: one NaN makes every later value NaN and the picture black. */

import { HalftoneError } from "../errors.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";

/** The bits of one element that are all set in NaN and infinity. */
const SPECIAL_BITS: Partial<Record<DType, number>> = {
  float32: 0x7f800000,
  float16: 0x7c00,
  bfloat16: 0x7f80,
  float8_e5m2: 0x7c,
  float8_e4m3fn: 0x7f,
};

/** The flat index of the first NaN or infinity, or -1. Integers have none. */
export function firstNonFinite(tensor: HostTensor): number {
  if (tensor.dtype === "float64") return firstIn(new Float64Array(tensor.bytes.slice().buffer));
  const mask = SPECIAL_BITS[tensor.dtype];
  if (mask === undefined) return -1;
  const size = itemSize(tensor.dtype);
  const first = firstSuspectWord(tensor.bytes, mask, size) * (4 / size);
  const rest = tensor.bytes.subarray(first * size);
  const index = firstIn(new HostTensor(tensor.dtype, [tensor.size - first], rest).toFloat32());
  return index < 0 ? -1 : first + index;
}

/**
 * The first of the whole 32-bit words that holds a special element, else their number. Several elements
 * are checked at once: adding the lowest bit of the mask carries into the sign's place exactly where
 * all bits of the mask are set.
 */
function firstSuspectWord(bytes: Uint8Array, mask: number, size: number): number {
  const whole = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(whole.buffer, whole.byteOffset, whole.byteLength >> 2);
  const masks = repeat(mask, size);
  const units = repeat(mask & -mask, size);
  const signs = repeat(2 ** (8 * size - 1), size);
  let i = 0;
  for (; i + 4 <= words.length; i += 4) {
    const carries = ((words[i] & masks) + units) | ((words[i + 1] & masks) + units) |
      ((words[i + 2] & masks) + units) | ((words[i + 3] & masks) + units);
    if ((carries & signs) !== 0) break;
  }
  while (i < words.length && (((words[i] & masks) + units) & signs) === 0) i++;
  return i;
}

/** The bits of one element for every element of a 32-bit word. */
function repeat(bits: number, size: number): number {
  let word = 0;
  for (let shift = 0; shift < 32; shift += 8 * size) word |= bits << shift;
  return word;
}

function firstIn(values: Float32Array | Float64Array): number {
  return values.findIndex((value) => !Number.isFinite(value));
}

/** Throws `non_finite_weight` when a tensor holds NaN or infinity. */
export function checkFinite(tensor: HostTensor, name: string, file?: string): void {
  const index = firstNonFinite(tensor);
  if (index < 0) return;
  const value = tensor.toFloat32()[index];
  throw new HalftoneError("non_finite_weight", "Cannot use a weight that is not finite", {
    file,
    tensor: name,
    found: `${value} at flat index ${index} of [${tensor.shape}]`,
    expected: "finite numbers",
    remedy: "The file is damaged, or the model was saved after its training had diverged.",
  });
}
