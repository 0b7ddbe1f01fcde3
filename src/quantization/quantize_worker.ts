/** A worker that quantizes: takes piece after piece of the jobs it is sent. */

import { type KernelJob, PIECE, type QuantizeKernels, valueBytes } from "./kernel_job.ts";
import { instantiateKernels } from "./wasm_kernels.ts";

/** A job that several workers share. */
export interface SharedJob {
  readonly job: KernelJob;
  /** The element of the matrix that `values` begin with. */
  readonly start: number;
  /** In shared memory, as all that follows. */
  readonly values: Uint8Array;
  /** That of the whole matrix. */
  readonly result: Uint8Array;
  /** The next piece that nobody has taken. */
  readonly cursor: Int32Array;
}

/** From the host. */
export type QuantizeRequest =
  | { readonly kind: "start"; readonly module: WebAssembly.Module }
  | ({ readonly kind: "job" } & SharedJob);

/** From the worker, in the order of the requests. */
export type QuantizeAnswer =
  | { readonly kind: "ready" }
  | { readonly kind: "done"; readonly finite: boolean }
  | { readonly kind: "failed"; readonly reason: string };

interface WorkerScope {
  onmessage: ((event: MessageEvent<QuantizeRequest>) => void) | null;
  postMessage(message: QuantizeAnswer): void;
}

/** A piece that no matrix has. */
const BEHIND_ALL = 2 ** 30;

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
  scope.postMessage({ kind: "done", finite: takePieces(request) });
}

function takePieces({ job, start, values, result, cursor }: SharedJob): boolean {
  const length = PIECE * valueBytes(job.values);
  for (;;) {
    const piece = Atomics.add(cursor, 0, 1);
    const part = values.subarray(piece * length, (piece + 1) * length);
    if (part.length === 0) return true;
    if (!kernels.run(job, start + piece * PIECE, part, result)) {
      Atomics.store(cursor, 0, BEHIND_ALL); // nobody needs the others
      return false;
    }
  }
}
