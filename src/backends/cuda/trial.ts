/** Work tried on memory of its own. */

import type { CudaDevice } from "./device.ts";

/** Device memory that begins as `bytes`, after what `enqueue` puts into the compute stream for its address. */
export function memoryAfter(
  device: CudaDevice,
  bytes: Uint8Array,
  enqueue: (address: number) => void,
): Uint8Array {
  const address = device.allocate(bytes.length, "scratch", "a trial");
  const result = new Uint8Array(bytes.length);
  try {
    device.upload(address, bytes);
    enqueue(address);
    device.download(address, result);
  } finally {
    device.free(address);
  }
  return result;
}
