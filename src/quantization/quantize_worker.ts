/** A worker that quantizes: does the jobs it is sent, one after another, and sends their buffers back. */

import { inputBytes, type KernelJob, type QuantizeKernels } from "./kernel_job.ts";
import { instantiateKernels } from "./wasm_kernels.ts";

/** From the host. */
export type QuantizeRequest =
  | { readonly kind: "start"; readonly module: WebAssembly.Module }
  | {
    readonly kind: "job";
    readonly job: KernelJob;
    /** The values in shared memory; without them they begin the buffer. */
    readonly shared?: Uint8Array;
    /** Takes the result. */
    readonly buffer: ArrayBuffer;
  };

/** From the worker, in the order of the requests. */
export type QuantizeAnswer =
  | { readonly kind: "ready" }
  | { readonly kind: "done"; readonly finite: boolean; readonly buffer: ArrayBuffer }
  | { readonly kind: "failed"; readonly reason: string };

interface WorkerScope {
  onmessage: ((event: MessageEvent<QuantizeRequest>) => void) | null;
  postMessage(message: QuantizeAnswer, transfer?: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;
let kernels: QuantizeKernels;

scope.onmessage = (event) => {
  handle(event.data).catch((error) => {
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    scope.postMessage({ kind: "failed", reason });
  });
};

async function handle(request: QuantizeRequest): Promise<void> {
  if (request.kind === "start") {
    kernels = await instantiateKernels(request.module);
    return scope.postMessage({ kind: "ready" });
  }
  const { job, shared, buffer } = request;
  const finite = kernels.run(job, shared ?? new Uint8Array(buffer, 0, inputBytes(job)), buffer);
  scope.postMessage({ kind: "done", finite, buffer }, [buffer]);
}
