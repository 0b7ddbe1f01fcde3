/**
 * Integer zero points as torchao applies them, before the scale: w = (q - zero) * scale. The layout adds
 * -zero * scale after it instead, which is the same for scales of 16 bits and within a rounding for
 * float32 ones; where the weight itself is wanted, this is exact.
 */

import { elementCount } from "../tensor/shape.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { unpackCodes } from "./codes.ts";
import type { EncodedWeight } from "./quantizer.ts";
import { ZERO_POINT } from "./torchao_schemes.ts";

/** The weight in its own type; null when it has no zero points. */
export function dequantizeZeroPoint({ tensor, dtype, verbatim }: EncodedWeight): HostTensor | null {
  const zeroPoint = verbatim?.get(ZERO_POINT)?.toFloat32();
  const { shape, layout, scale } = tensor;
  if (!zeroPoint || !tensor.offset || layout.value.kind !== "integer") return null;
  if (scale.kind !== "float") return null;
  const scales = scale.values.toFloat32();
  const codes = unpackCodes(tensor.codes, layout.bits, elementCount(shape));
  const weights = new Float32Array(codes.length);
  for (let index = 0; index < codes.length; index++) {
    const group = Math.floor(index / layout.groupSize);
    const value = codes[index] - layout.value.zeroPoint - zeroPoint[group];
    weights[index] = value * scales[group];
  }
  return HostTensor.fromFloat32(weights, shape).cast(dtype);
}
