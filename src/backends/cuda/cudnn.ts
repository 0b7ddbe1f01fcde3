/**
 * cuDNN, NVIDIA's library for neural networks: optional, found where it is installed, asked once per kind of
 * attention and convolution how to compute it.
 */

import { HalftoneError } from "../../errors.ts";
import { addressOf } from "../../runtime/foreign.ts";
import {
  choiceKey,
  fastestOf,
  millisecondsOfRuns,
  RememberedChoices,
  type TimedDevice,
} from "./algorithm_choice.ts";
import { CudnnCalls } from "./cudnn_calls.ts";
import { CudnnDescriptors } from "./cudnn_descriptors.ts";
import { describeOperation, SCALE_ID } from "./cudnn_operations.ts";
import { type CudnnPlan, fittingPlans } from "./cudnn_plan.ts";
import { CUDNN_ATTRIBUTE, CUDNN_DESCRIPTOR, CUDNN_TYPE } from "./cudnn_symbols.ts";
import {
  type DnnAddresses,
  type DnnLibrary,
  type DnnProblem,
  multiplications,
  type PreparedDnn,
  problemText,
} from "./dnn_problem.ts";
import { openFirst } from "./library_calls.ts";

/** The first version whose descriptors these are. */
const LEAST_VERSION = 90000;
/** The first version whose operation of attention is supported, as NVIDIA's own front end has it. */
export const ATTENTION_VERSION = 91301;

/** Plans of a large problem that are timed; each may have to be compiled. */
const CANDIDATES = 4;

/** Suggestions of the library that were the fastest. */
const CHOICES = new RememberedChoices<number>();
const EXECUTE = "cudnnBackendExecute";

interface CudnnOperation extends PreparedDnn {
  readonly descriptors: CudnnDescriptors;
  /** What it may be executed by; all but the fastest are given back before it first runs. */
  plans: readonly CudnnPlan[];
  /** Attention's scale, which is read where it lies. */
  readonly scale: Float32Array<ArrayBuffer>;
}

/** A started cuDNN on the current context's device. */
export class Cudnn implements DnnLibrary {
  readonly calls: CudnnCalls;
  readonly hasAttention: boolean;
  /** Why there was none of an attention that was asked for: its code does not compile, or there is no engine. */
  attentionFault: string | null = null;
  readonly #handle: number;
  readonly #device: TimedDevice;
  readonly #prepared = new Map<string, CudnnOperation | null>();
  #stream = 0;

  /** Throws `backend_unavailable` for an old version, `backend_failed` when it does not start. */
  constructor(calls: CudnnCalls, device: TimedDevice) {
    this.calls = calls;
    this.#device = device;
    this.hasAttention = calls.version >= ATTENTION_VERSION;
    if (calls.version < LEAST_VERSION) {
      throw new HalftoneError("backend_unavailable", "Cannot use this cuDNN: it is too old", {
        file: calls.library,
        found: calls.versionText,
        expected: "9.0.0 or newer",
      });
    }
    this.#handle = calls.get("cudnnCreate", "start cuDNN");
  }

  /** The first library that opens and starts; a string says why none does. */
  static open(libraries: readonly string[], device: TimedDevice): Cudnn | string {
    return openFirst(libraries, (library) => new Cudnn(new CudnnCalls(library), device));
  }

  /** Such as "cuDNN 9.20.0". */
  get description(): string {
    return `cuDNN ${this.calls.versionText}`;
  }

  /** Asks the library once for each kind of problem; null where it cannot do it. */
  prepare(problem: DnnProblem): PreparedDnn | null {
    const key = JSON.stringify(problem);
    const known = this.#prepared.get(key);
    if (known !== undefined) return known;
    const found = this.#prepare(problem);
    this.#prepared.set(key, found);
    return found;
  }

  #prepare(problem: DnnProblem): CudnnOperation | null {
    const { calls } = this;
    const descriptors = new CudnnDescriptors(calls, `prepare ${problemText(problem)}`);
    const scale = new Float32Array(new ArrayBuffer(4));
    if (problem.kind === "attention") scale[0] = problem.scale;
    try {
      const operation = describeOperation(descriptors, problem);
      const target = { kind: "handle", handle: this.#handle } as const;
      let fault = "no engine";
      const onFault = (error: HalftoneError) => void (fault = error.message);
      const making = { calls, descriptors, target, onFault };
      const plans = fittingPlans(making, operation, problem, this.#wanted(problem));
      if (plans.length > 0) return { problem, descriptors, plans, scale, isWarm: false };
      if (problem.kind === "attention") this.attentionFault = fault;
    } catch (error) {
      descriptors.free();
      if (isNotSupported(error)) return null;
      throw error;
    }
    descriptors.free();
    return null;
  }

  /** The library's first choice, or of a large problem some to be timed, or what was the fastest before. */
  #wanted(problem: DnnProblem) {
    if (multiplications(problem) < this.#device.measureFrom) return { most: 1 };
    return { most: CANDIDATES, suggestion: CHOICES.known(this.#keyOf(problem)) ?? undefined };
  }

  #keyOf(problem: DnnProblem): string {
    return choiceKey(this.#device, this.calls.version, problem);
  }

  /** Puts an operation into a stream; before its first run it is put there for each of its plans, to time them. */
  enqueue(prepared: PreparedDnn, addresses: DnnAddresses, stream: number): void {
    const operation = prepared as CudnnOperation;
    const doing = running(prepared.problem);
    this.#use(stream);
    const descriptors = new CudnnDescriptors(this.calls, doing);
    try {
      const pack = this.#pack(descriptors, operation, addresses);
      if (operation.plans.length > 1) this.#choose(operation, pack);
      this.calls.run(EXECUTE, doing, this.#handle, operation.plans[0]!.plan, pack);
    } finally {
      descriptors.free();
    }
    prepared.isWarm = true;
  }

  /** Keeps the fastest of an operation's plans. */
  #choose(operation: CudnnOperation, pack: number): void {
    const { plans, problem, descriptors } = operation;
    const doing = running(problem);
    const time = ({ plan }: CudnnPlan, runs: number) =>
      millisecondsOfRuns(
        this.#device,
        runs,
        () => this.calls.isSupported(EXECUTE, doing, this.#handle, plan, pack),
      );
    const key = this.#keyOf(problem);
    const chosen = CHOICES.choose(key, () => fastestOf(plans, time)?.suggestion ?? null);
    const kept = plans.find(({ suggestion }) => suggestion === chosen) ?? plans[0]!;
    operation.plans = [kept];
    for (const { plan } of plans) {
      if (plan !== kept.plan) descriptors.drop(plan);
    }
  }

  /** What an execution reads and writes. */
  #pack(
    descriptors: CudnnDescriptors,
    { problem, scale }: CudnnOperation,
    { operands, workspace }: DnnAddresses,
  ): number {
    const places = operands.map((address, index) => [index + 1, address!] as const);
    if (problem.kind === "attention") places.push([SCALE_ID, addressOf(scale)]);
    const { voidPointer } = CUDNN_TYPE;
    const attribute = CUDNN_ATTRIBUTE.variantPack;
    const pack = descriptors.make(CUDNN_DESCRIPTOR.variantPack);
    const pointers = places.map(([, address]) => address);
    descriptors.setIntegers(pack, attribute.uniqueIds, ...places.map(([id]) => id));
    descriptors.setPointers(pack, attribute.dataPointers, voidPointer, ...pointers);
    descriptors.setPointers(pack, attribute.workspace, voidPointer, workspace);
    descriptors.finalize(pack);
    return pack;
  }

  #use(stream: number): void {
    if (this.#stream === stream) return;
    this.calls.run("cudnnSetStream", "let cuDNN use a stream", this.#handle, stream);
    this.#stream = stream;
  }

  /** Ends it; nothing of it may still be running. */
  close(): void {
    for (const prepared of this.#prepared.values()) prepared?.descriptors.free();
    this.#prepared.clear();
    this.calls.try("cudnnDestroy", this.#handle);
  }
}

/** For errors. */
function running(problem: DnnProblem): string {
  return `run ${problemText(problem)}`;
}

/** A descriptor that is refused for what it asks is none that the library can do. */
function isNotSupported(error: unknown): boolean {
  return error instanceof HalftoneError &&
    String(error.detail.found).startsWith("CUDNN_STATUS_NOT_SUPPORTED");
}
