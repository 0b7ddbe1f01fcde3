/**
 * Quantizing a dense matrix piece by piece: on workers where the matrix is large and there are some, else on
 * the calling thread, which then lets the event loop turn between pieces. What is made of a value depends on
 * its group alone, so the bytes are the same for any number of threads.
 */

import { hasSharedWorkers } from "../runtime/workers.ts";
import { toFloat32 } from "../tensor/convert.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { itemSize } from "../tensor/dtype.ts";
import { mapNumbers } from "./encode_rule.ts";
import {
  type JobValues,
  type KernelJob,
  PIECE,
  type QuantizeKernels,
  resultBytes,
} from "./kernel_job.ts";
import type { Pause } from "./pause.ts";
import { quantizePool, type QuantizeWorker } from "./quantize_pool.ts";
import { REFERENCE_KERNELS } from "./reference_kernels.ts";
import { floatTypeOf } from "./rounding.ts";
import { instantiateKernels, quantizeModule } from "./wasm_kernels.ts";

/** Matrices below it are not worth the start of a worker. */
const LEAST_FOR_WORKERS = 1 << 21;
/** Elements of a matrix in memory of its own that are copied for workers at a time. */
const SLAB = 1 << 22;

/** What to do with a matrix. */
export interface MatrixWork {
  readonly dense: HostTensor;
  readonly job: KernelJob;
  /** That of an earlier job of the kind on this matrix, to be written over; new memory when absent. */
  readonly result?: Uint8Array;
  /** Called when a piece holds a value that kernels do not take; must throw. */
  refuse(result: Uint8Array): never;
}

let kernels: Promise<QuantizeKernels> | undefined;

/** The kernels of the calling thread. */
export function localKernels(): Promise<QuantizeKernels> {
  kernels ??= typeof WebAssembly === "object"
    ? quantizeModule().then(instantiateKernels)
    : Promise.resolve(REFERENCE_KERNELS);
  return kernels;
}

/** How kernels get the values of a matrix. */
export function jobValues({ dtype }: HostTensor, toFloat16 = false): JobValues {
  return { dtype: floatTypeOf(dtype), toFloat16 };
}

/** Does the work on all of a matrix; the result may lie in shared memory. */
export async function runKernels(work: MatrixWork, pause: Pause): Promise<Uint8Array> {
  const { dense, job } = work;
  const threads = pause.threads ?? 0;
  const isLarge = dense.size >= LEAST_FOR_WORKERS;
  const bytes = resultBytes(job, dense.size);
  const outcome = threads < 2 || !isLarge || !hasSharedWorkers()
    ? runHere(dense, job, work.result ?? new Uint8Array(bytes), pause)
    : quantizePool.use(
      Math.min(threads, Math.ceil(dense.size / PIECE)),
      (workers) =>
        runOn(workers, dense, withSharedNumbers(job), work.result ?? countedBytes(bytes)),
    );
  const { finite, result } = await outcome;
  if (!finite) work.refuse(result);
  return result;
}

/** What came of a job. */
interface Outcome {
  readonly finite: boolean;
  readonly result: Uint8Array;
}

async function runHere(
  dense: HostTensor,
  job: KernelJob,
  result: Uint8Array,
  pause: Pause,
): Promise<Outcome> {
  const here = await localKernels();
  for (let start = 0; start < dense.size; start += PIECE) {
    const end = Math.min(start + PIECE, dense.size);
    if (!here.run(job, start, valuesOf(dense, job, start, end), result)) {
      return { finite: false, result };
    }
    await pause();
  }
  return { finite: true, result };
}

/** The workers take piece after piece; values that they do not see are copied slab by slab. */
async function runOn(
  workers: readonly QuantizeWorker[],
  dense: HostTensor,
  job: KernelJob,
  result: Uint8Array,
): Promise<Outcome> {
  const isSeen = dense.bytes.buffer instanceof SharedArrayBuffer &&
    dense.dtype === job.values.dtype;
  const step = isSeen ? dense.size : SLAB;
  for (let start = 0; start < dense.size; start += step) {
    const own = valuesOf(dense, job, start, Math.min(start + step, dense.size));
    const values = isSeen ? own : shared(own);
    const cursor = new Int32Array(new SharedArrayBuffer(4));
    const answers = workers.map((worker) => worker.run({ job, start, values, result, cursor }));
    if ((await Promise.all(answers)).includes(false)) return { finite: false, result };
  }
  return { finite: true, result };
}

/** The bytes of some values: a view where kernels take the type. */
function valuesOf({ dtype, bytes }: HostTensor, { values }: KernelJob, start: number, end: number) {
  const size = itemSize(dtype);
  const part = bytes.subarray(start * size, end * size);
  return values.dtype === dtype ? part : new Uint8Array(toFloat32(dtype, part).buffer);
}

/**
 * Shared memory for a result. V8 does not count such memory when it decides to collect garbage: left alone,
 * the results and the weights of a whole model would stay. So it sees a plain buffer of the size, which
 * nobody touches.
 */
function countedBytes(length: number): Uint8Array {
  new ArrayBuffer(length);
  return sharedBytes(length);
}

function sharedBytes(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length));
}

function shared(bytes: Uint8Array): Uint8Array {
  const copy = sharedBytes(bytes.length);
  copy.set(bytes);
  return copy;
}

/** The numbers of groups go to all workers. */
function withSharedNumbers(job: KernelJob): KernelJob {
  const share = (numbers: Float32Array) => {
    const copy = new Float32Array(new SharedArrayBuffer(numbers.byteLength));
    copy.set(numbers);
    return copy;
  };
  if (job.kind === "encode") return { ...job, rule: mapNumbers(job.rule, share) };
  if (job.kind === "hqq") return { ...job, inverse: share(job.inverse), zero: share(job.zero) };
  return job;
}
