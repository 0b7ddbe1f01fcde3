/** Times work on a device by events in its compute stream. */

import { addressOf } from "../../runtime/foreign.ts";
import type { CudaDevice } from "./device.ts";

const DOING = "time work on the device";

/** Milliseconds that the device takes for what `enqueue` puts into the compute stream; blocks the thread for it. */
export function millisecondsOf(device: CudaDevice, enqueue: () => void): number {
  const events: number[] = [];
  const mark = (): number => {
    const event = device.createEvent(true);
    events.push(event);
    device.record(event, device.compute);
    return event;
  };
  try {
    const start = mark();
    enqueue();
    const end = mark();
    const elapsed = new Float32Array(new ArrayBuffer(4));
    device.driver.run("cuEventSynchronize", DOING, end);
    device.driver.run("cuEventElapsedTime", DOING, addressOf(elapsed), start, end);
    return elapsed[0]!;
  } finally {
    for (const event of events) device.destroyEvent(event);
  }
}
