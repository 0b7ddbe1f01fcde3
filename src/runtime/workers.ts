/** Module workers: the Web Worker API of Deno, Bun and browsers. */

import { HalftoneError } from "../errors.ts";

/** A running worker. */
export interface SpawnedWorker {
  /** The name given at the start, for errors. */
  readonly name: string;
  /** Sends a message; `transfer` moves buffers instead of copying them. */
  post(message: unknown, transfer?: Transferable[]): void;
  /** Sets who gets the worker's messages. */
  onMessage(handler: (message: unknown) => void): void;
  /** Sets who hears of an error that the worker did not catch; without one it is thrown here. */
  onError(handler: (error: HalftoneError) => void): void;
  /** Ends the worker. In Deno one blocked in `Atomics.wait` must be woken first, or it stays. */
  terminate(): void;
}

/** Whether workers and shared memory are both there. */
export function hasSharedWorkers(): boolean {
  return hasWorkers() && typeof SharedArrayBuffer === "function";
}

/** Whether there are workers. */
export function hasWorkers(): boolean {
  return typeof Worker === "function";
}

/** Starts a module worker. Throws `backend_unavailable` where there are none. */
export function spawnWorker(url: URL, name: string): SpawnedWorker {
  if (!hasWorkers()) {
    throw new HalftoneError("backend_unavailable", "Cannot start a worker: there are none here");
  }
  const worker = new Worker(url, { type: "module", name });
  return {
    name,
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    onMessage: (handler) => {
      worker.onmessage = (event: MessageEvent) => handler(event.data);
    },
    onError: (handler) => {
      worker.onerror = (event: ErrorEvent) => {
        event.preventDefault();
        handler(workerError(name, event));
      };
    },
    terminate: () => worker.terminate(),
  };
}

function workerError(name: string, event: ErrorEvent): HalftoneError {
  // Bun's message is the source around the fault, then "error: ...".
  const found = /^error: (.*)$/m.exec(event.message)?.[1] ?? event.message;
  const detail = { field: name, found };
  return new HalftoneError("backend_failed", "Cannot go on: a worker failed", detail, event.error);
}
