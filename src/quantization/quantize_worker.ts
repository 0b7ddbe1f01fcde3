/** A worker that quantizes: takes piece after piece of the jobs it is sent. */

import { type KernelJob, PIECE, type QuantizeKernels, valueBytes } from "./kernel_job.ts";
import type { SharedMemory } from "../tensor/shared_scratch.ts";
import {
  instantiateKernels,
  instantiateQuantize,
  kernelsInPlace,
  type QuantizeExports,
} from "./wasm_kernels.ts";

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

/** Where values and results of a job lie when kernels need no copies of them. */
export interface WorkPlace extends SharedMemory {
  /** The address of the worker's own part of it. */
  readonly area: number;
}

/** From the host. */
export type QuantizeRequest =
  | { readonly kind: "start"; readonly module: WebAssembly.Module }
  | ({ readonly kind: "job"; readonly place?: WorkPlace } & SharedJob);

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
let module: WebAssembly.Module;
/** In a memory of its own; only where a job is not in place, as engines keep few memories fast. */
let own: QuantizeKernels | undefined;
/** The kernels in the memories of the last jobs in place, of two weights that are loaded by turns. */
const places: { readonly memory: SharedMemory; readonly exports: QuantizeExports }[] = [];
const MOST_PLACES = 2;
/** The end of the last request: one is done after another. */
let turn = Promise.resolve();

scope.onmessage = (event) => {
  turn = turn.then(() => handle(event.data)).catch((error) => {
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    scope.postMessage({ kind: "failed", reason });
  });
};

async function handle(request: QuantizeRequest): Promise<void> {
  if (request.kind === "start") {
    module = request.module;
    return scope.postMessage({ kind: "ready" });
  }
  const kernels = await kernelsAt(request.place);
  scope.postMessage({ kind: "done", finite: takePieces(kernels, request) });
}

async function kernelsAt(place: WorkPlace | undefined): Promise<QuantizeKernels> {
  if (!place) return own ??= await instantiateKernels(module, { shared: true });
  let there = places.find(({ memory }) => memory.id === place.id);
  if (!there) {
    there = { memory: place, exports: await instantiateQuantize(module, place.memory) };
    if (places.push(there) > MOST_PLACES) places.shift();
  }
  return kernelsInPlace(there.exports, there.memory.memory, place.area);
}

function takePieces(
  kernels: QuantizeKernels,
  { job, start, values, result, cursor }: SharedJob,
): boolean {
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
