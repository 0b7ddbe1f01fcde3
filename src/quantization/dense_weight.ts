/** A quantized weight made dense again, as its library does it. */

import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { dequantize } from "./dequantize.ts";
import type { EncodedWeight, Quantizer } from "./quantizer.ts";

/** The dense weight in `dtype`; computed in its own type where that is the same and the library does so. */
export function denseWeight(
  quantizer: Quantizer,
  weight: EncodedWeight,
  dtype: DType = weight.dtype,
): HostTensor {
  const own = dtype === weight.dtype ? quantizer.dequantize?.(weight) : null;
  const dense = own ?? HostTensor.fromFloat32(dequantize(weight.tensor), weight.tensor.shape);
  return dense.cast(dtype);
}
