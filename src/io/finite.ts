/** Weights must be finite: one NaN makes every later value NaN and the picture black. */

import { HalftoneError } from "../errors.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import type { QuantizeExports } from "../quantization/wasm_kernels.ts";
import { elementBits, firstNonFinite } from "../tensor/finite.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Piece } from "../tensor/piece_memory.ts";
import type { Shape } from "../tensor/shape.ts";

/** Throws `non_finite_weight` when a tensor holds NaN or infinity. */
export function checkFinite(tensor: HostTensor, name: string, file?: string): void {
  const index = firstNonFinite(tensor);
  if (index >= 0) throw notFinite(tensor, index, { name, file, shape: tensor.shape, first: index });
}

/** The same of a piece of a tensor, by kernels over its memory. */
export function checkPieceFinite(
  { bytes, start }: Piece,
  { dtype, ...whole }: { name: string; file: string; dtype: DType; shape: Shape },
  kernels: QuantizeExports,
): void {
  if (!mayBeSpecial(bytes, dtype, kernels)) return;
  const size = itemSize(dtype);
  const tensor = new HostTensor(dtype, [bytes.length / size], bytes);
  const index = firstNonFinite(tensor);
  if (index >= 0) throw notFinite(tensor, index, { ...whole, first: start / size + index });
}

function mayBeSpecial(bytes: Uint8Array, dtype: DType, kernels: QuantizeExports): boolean {
  const bits = elementBits(dtype);
  if (bits === null) return dtype === "float64";
  const { special, lowest, sign } = bits;
  return kernels.is_finite(bytes.byteOffset, bytes.length, special, lowest, sign) === 0;
}

function notFinite(
  tensor: HostTensor,
  index: number,
  { name, file, shape, first }: { name: string; file?: string; shape: Shape; first: number },
): HalftoneError {
  const value = tensor.toFloat32()[index];
  return new HalftoneError("non_finite_weight", "Cannot use a weight that is not finite", {
    file,
    tensor: name,
    found: `${value} at flat index ${first} of [${shape}]`,
    expected: "finite numbers",
    remedy: "The file is damaged, or the model was saved after its training had diverged.",
  });
}
