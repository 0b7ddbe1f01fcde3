/**
 * Quantizing a dense matrix run by run: on workers where the matrix is large and there are some, else on
 * the calling thread, which then lets the event loop turn between runs. What is made of a value depends on
 * its group alone, so the bytes are the same for any number of threads.
 */

import { hasWorkers } from "../runtime/workers.ts";
import { toFloat32 } from "../tensor/convert.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { itemSize } from "../tensor/dtype.ts";
import {
  type JobGroups,
  type JobValues,
  type KernelJob,
  type QuantizeKernels,
  resultBytes,
} from "./kernel_job.ts";
import type { Pause } from "./pause.ts";
import { quantizePool, type QuantizeWorker } from "./quantize_pool.ts";
import { REFERENCE_KERNELS } from "./reference_kernels.ts";
import { floatTypeOf } from "./rounding.ts";
import { instantiateKernels, quantizeModule } from "./wasm_kernels.ts";

/** Elements of a run here, and on a worker, where each message has its price; whole blocks of every type. */
const RUN = 1 << 17;
const WORKER_RUN = 1 << 19;
/** Matrices below it are not worth the start of a worker. */
const LEAST_FOR_WORKERS = 1 << 21;
/** Runs that wait at a worker while it does another. */
const DEPTH = 2;

/** A run of a matrix. */
export interface Run {
  /** Flat index of its first element. */
  readonly start: number;
  readonly values: JobValues;
}

/** What to do with a matrix. */
export interface RunWork {
  readonly dense: HostTensor;
  /** Round the values to float16 first. */
  readonly toFloat16?: boolean;
  jobOf(run: Run): KernelJob;
  /** Takes a result, which begins the buffer; not necessarily in the order of the runs. */
  take(run: Run, buffer: ArrayBuffer): void;
  /** Called when a run holds a value that kernels do not take; must throw. */
  refuse(): never;
}

let kernels: Promise<QuantizeKernels> | undefined;

/** The kernels of the calling thread. */
export function localKernels(): Promise<QuantizeKernels> {
  kernels ??= typeof WebAssembly === "object"
    ? quantizeModule().then(instantiateKernels)
    : Promise.resolve(REFERENCE_KERNELS);
  return kernels;
}

/** Does the work on all runs of a matrix. */
export async function runKernels(work: RunWork, pause: Pause): Promise<void> {
  const threads = pause.threads ?? 0;
  if (threads < 2 || work.dense.size < LEAST_FOR_WORKERS || !hasWorkers()) {
    return await runHere(work, pause);
  }
  const runs = runsOf(work, WORKER_RUN);
  await quantizePool.use(Math.min(threads, runs.length), (workers) => runOn(workers, work, runs));
}

function runsOf({ dense, toFloat16 }: RunWork, length: number): Run[] {
  const dtype = floatTypeOf(dense.dtype);
  const runs: Run[] = [];
  for (let start = 0; start < dense.size; start += length) {
    runs.push({ start, values: { dtype, toFloat16, count: Math.min(length, dense.size - start) } });
  }
  return runs;
}

async function runHere(work: RunWork, pause: Pause): Promise<void> {
  const here = await localKernels();
  let buffer = new ArrayBuffer(0);
  for (const run of runsOf(work, RUN)) {
    const job = work.jobOf(run);
    buffer = atLeast(resultBytes(job), buffer);
    if (!here.run(job, valuesOf(work.dense, run), buffer)) work.refuse();
    work.take(run, buffer);
    await pause();
  }
}

/** Each worker takes the next run as soon as it is through with one. */
async function runOn(
  workers: readonly QuantizeWorker[],
  work: RunWork,
  runs: readonly Run[],
): Promise<void> {
  let next = 0;
  const lane = async (worker: QuantizeWorker) => {
    let buffer = new ArrayBuffer(0);
    while (next < runs.length) {
      const run = runs[next++];
      const result = await send(worker, work, run, buffer);
      buffer = result.buffer;
      if (!result.finite) work.refuse();
      work.take(run, buffer);
    }
  };
  try {
    const lanes = workers.flatMap((worker) => Array.from({ length: DEPTH }, () => lane(worker)));
    await Promise.all(lanes);
  } finally {
    next = runs.length; // after a failure nobody takes another run
  }
}

function send(worker: QuantizeWorker, work: RunWork, run: Run, buffer: ArrayBuffer) {
  const job = work.jobOf(run);
  const values = valuesOf(work.dense, run);
  if (!(values.buffer instanceof ArrayBuffer)) {
    return worker.run(job, atLeast(resultBytes(job), buffer), values);
  }
  const filled = atLeast(Math.max(values.byteLength, resultBytes(job)), buffer);
  new Uint8Array(filled).set(values);
  return worker.run(job, filled);
}

/** A buffer of so many bytes: the old one where it is long enough. */
function atLeast(bytes: number, old: ArrayBuffer): ArrayBuffer {
  return old.byteLength >= bytes ? old : new ArrayBuffer(bytes);
}

/** The bytes of a run's values: a view where kernels take the type. */
function valuesOf({ dtype, bytes }: HostTensor, { start, values }: Run): Uint8Array {
  const size = itemSize(dtype);
  const part = bytes.subarray(start * size, (start + values.count) * size);
  return values.dtype === dtype ? part : new Uint8Array(toFloat32(dtype, part).buffer);
}

/** How groups of a size lie in a run. */
export function groupsOfRun({ start, values }: Run, groupSize: number): JobGroups {
  const left = groupSize - start % groupSize;
  return { head: Math.min(left, values.count), groupSize: Math.min(groupSize, values.count) };
}
