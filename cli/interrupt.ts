/** Ctrl-C as an AbortSignal: the first ends the work cleanly, the second ends the process. */

import { exitProcess, onInterrupt } from "../src/runtime/system.ts";
import { EXIT } from "./failure.ts";

/** Runs work whose signal fires on the first Ctrl-C or SIGTERM. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stopListening = onInterrupt(() => {
    if (controller.signal.aborted) exitProcess(EXIT.interrupted);
    controller.abort();
  });
  try {
    const result = await work(controller.signal);
    controller.signal.throwIfAborted();
    return result;
  } finally {
    stopListening();
  }
}
