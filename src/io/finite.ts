/** Weights must be finite: one NaN makes every later value NaN and the picture black. */

import { HalftoneError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";

/** Per type: the bits that are all set in NaN and infinity, and the words they are looked for in. */
const SPECIAL_BITS: Partial<Record<DType, { word: 1 | 2 | 4 | 8; mask: number }>> = {
  float64: { word: 8, mask: 0x7ff00000 }, // of the upper half
  float32: { word: 4, mask: 0x7f800000 },
  float16: { word: 2, mask: 0x7c00 },
  bfloat16: { word: 2, mask: 0x7f80 },
  float8_e5m2: { word: 1, mask: 0x7c },
  float8_e4m3fn: { word: 1, mask: 0x7f },
};

/** The flat index of the first NaN or infinity, or -1. Integers have none. */
export function firstNonFinite(tensor: HostTensor): number {
  const special = SPECIAL_BITS[tensor.dtype];
  if (special === undefined) return -1;
  const { buffer, byteOffset, byteLength } = tensor.bytes;
  const { word, mask } = special;
  if (word === 8) return scan(new Uint32Array(buffer, byteOffset, byteLength / 4), mask, 1, 2);
  if (word === 4) return scan(new Uint32Array(buffer, byteOffset, byteLength / 4), mask, 0, 1);
  if (word === 2) return scan(new Uint16Array(buffer, byteOffset, byteLength / 2), mask, 0, 1);
  return scan(tensor.bytes, mask, 0, 1);
}

function scan(
  words: Uint32Array | Uint16Array | Uint8Array,
  mask: number,
  first: number,
  step: number,
): number {
  for (let i = first; i < words.length; i += step) {
    if ((words[i] & mask) === mask) return (i - first) / step;
  }
  return -1;
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
