/** The order backends want a convolution's weight in. */

import { itemSize } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";

/** A convolution's [out, in, height, width] as [out, height, width, in]. */
export function channelsLast(tensor: HostTensor): HostTensor {
  const [out, channels, height, width] = tensor.shape;
  const size = itemSize(tensor.dtype);
  const pixels = height * width;
  const result = HostTensor.zeros(tensor.dtype, [out, height, width, channels]);
  const from = tensor.bytes, to = result.bytes;
  let position = 0;
  for (let filter = 0; filter < out; filter++) {
    for (let pixel = 0; pixel < pixels; pixel++) {
      for (let channel = 0; channel < channels; channel++) {
        const start = ((filter * channels + channel) * pixels + pixel) * size;
        for (let byte = 0; byte < size; byte++) to[position++] = from[start + byte];
      }
    }
  }
  return result;
}
