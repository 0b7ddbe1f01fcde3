/**
 * Quantizing a dense matrix piece by piece: on workers where the matrix is large and there are some, else on
 * the calling thread, which then lets the event loop turn between pieces. What is made of a value depends on
 * its group alone, so the bytes are the same for any number of threads.
 */

import { hasSharedWorkers } from "../runtime/workers.ts";
import { toFloat32 } from "../tensor/convert.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { itemSize } from "../tensor/dtype.ts";
import { countBytes, type SharedScratch } from "../tensor/shared_scratch.ts";
import { mapNumbers } from "./encode_rule.ts";
import {
  type JobValues,
  type KernelJob,
  PIECE,
  type QuantizeKernels,
  resultBytes,
  valueBytes,
} from "./kernel_job.ts";
import type { Pause } from "./pause.ts";
import { quantizePool, type QuantizeWorker } from "./quantize_pool.ts";
import type { WorkPlace } from "./quantize_worker.ts";
import { REFERENCE_KERNELS } from "./reference_kernels.ts";
import { floatTypeOf } from "./rounding.ts";
import { areaBytes, instantiateKernels, quantizeModule } from "./wasm_kernels.ts";

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
    ? quantizeModule({ shared: false }).then((module) => {
      return instantiateKernels(module, { shared: false });
    })
    : Promise.resolve(REFERENCE_KERNELS);
  return kernels;
}

/** How kernels get the values of a matrix. */
export function jobValues({ dtype }: HostTensor, toFloat16 = false): JobValues {
  return { dtype: floatTypeOf(dtype), toFloat16 };
}

/** Does the work on all of a matrix; the result may lie in shared memory, and in the pause's scratch. */
export async function runKernels(work: MatrixWork, pause: Pause): Promise<Uint8Array> {
  const { dense, job } = work;
  const threads = pause.threads ?? 0;
  const isLarge = dense.size >= LEAST_FOR_WORKERS;
  const outcome = threads < 2 || !isLarge || !hasSharedWorkers()
    ? runHere(work, pause)
    : quantizePool.use(
      Math.min(threads, Math.ceil(dense.size / PIECE)),
      (workers) => runOn(workers, { ...work, job: withSharedNumbers(job) }, pause.scratch?.shared),
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
  { dense, job, result: earlier }: MatrixWork,
  pause: Pause,
): Promise<Outcome> {
  const here = await localKernels();
  const bytes = resultBytes(job, dense.size);
  const result = earlier ?? pause.scratch?.take(bytes) ?? new Uint8Array(bytes);
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
  { dense, job, result: earlier }: MatrixWork,
  scratch: SharedScratch | undefined,
): Promise<Outcome> {
  const result = earlier ?? sharedBytes(resultBytes(job, dense.size), scratch);
  const slab = isSeen(dense, job) ? null : sharedBytes(SLAB * valueBytes(job.values), scratch);
  const step = slab ? SLAB : dense.size;
  const places = workPlaces(workers, job, [slab ?? dense.bytes, result], scratch);
  for (let start = 0; start < dense.size; start += step) {
    const own = valuesOf(dense, job, start, Math.min(start + step, dense.size));
    const values = slab ? copied(own, slab) : own;
    const cursor = new Int32Array(new SharedArrayBuffer(4));
    const answers = workers.map((worker, index) => {
      return worker.run({ job, start, values, result, cursor }, places[index]);
    });
    if ((await Promise.all(answers)).includes(false)) return { finite: false, result };
  }
  return { finite: true, result };
}

/** Whether workers see the values of a matrix, in a type that kernels take. */
function isSeen({ bytes, dtype }: HostTensor, { values }: KernelJob): boolean {
  return bytes.buffer instanceof SharedArrayBuffer && dtype === values.dtype;
}

/** The workers' places in the memory that values and results lie in; none where that is not the scratch's. */
function workPlaces(
  workers: readonly QuantizeWorker[],
  job: KernelJob,
  pieces: readonly Uint8Array[],
  scratch: SharedScratch | undefined,
): WorkPlace[] {
  if (!scratch?.memoryOf(...pieces)) return [];
  const areas = workers.map(() => scratch.take(areaBytes(job)));
  const memory = scratch.memoryOf(...pieces, ...areas); // which may have grown for the areas
  return memory ? areas.map(({ byteOffset }) => ({ ...memory, area: byteOffset })) : [];
}

/** The bytes of some values: a view where kernels take the type. */
function valuesOf({ dtype, bytes }: HostTensor, { values }: KernelJob, start: number, end: number) {
  const size = itemSize(dtype);
  const part = bytes.subarray(start * size, end * size);
  return values.dtype === dtype ? part : new Uint8Array(toFloat32(dtype, part).buffer);
}

function sharedBytes(length: number, scratch: SharedScratch | undefined): Uint8Array {
  if (scratch) return scratch.take(length);
  countBytes(length);
  return new Uint8Array(new SharedArrayBuffer(length));
}

function copied(bytes: Uint8Array, to: Uint8Array): Uint8Array {
  to.set(bytes);
  return to.subarray(0, bytes.length);
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
