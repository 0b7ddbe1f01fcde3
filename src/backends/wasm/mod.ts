/**
 * The WebAssembly backend: Rust kernels walked by persistent workers over one shared memory. Two builds,
 * plain and relaxed SIMD; where shared memory is missing, the calling thread does the work.
 *
 * @module
 */

import { HalftoneError } from "../../errors.ts";
import { cpuCount } from "../../runtime/system.ts";
import { hasSharedWorkers } from "../../runtime/workers.ts";
import type { OpName } from "../../ops/op_table.ts";
import type { Plan, PlanWeight } from "../../plan/plan.ts";
import type {
  Backend,
  BackendLimits,
  LoadOptions,
  MemoryUse,
  Program,
  WeightSet,
  WeightSource,
} from "../backend.ts";
import { Engine } from "./engine.ts";
import { programBytes, totalProgramBytes, WasmProgram } from "./program.ts";
import { planSlots } from "../slot_plan.ts";
import { unitBytes, WasmWeightSet } from "./weight_set.ts";

/** Most workers by default; more bring little on shared caches. */
const MOST_THREADS = 16;
/** Most workers that may be asked for: starting a thousand takes minutes and gigabytes. */
const THREAD_LIMIT = 128;
const GIBIBYTE = 1024 ** 3;
/** 32-bit memory, less what tapes, scratch and the module itself take. */
const ADDRESSABLE_BYTES = 4 * GIBIBYTE - 64 * 1024 * 1024;
/** Leaves room for the intermediates of FLUX.1's decoder at 1024x1024, 2.0 GiB. */
const DEFAULT_RESIDENT_BYTES = 1.75 * GIBIBYTE;

/** Options of the wasm backend. */
export interface WasmBackendOptions {
  /** Workers, 1 to 128; by default the number of processors, at most 16. */
  readonly threads?: number;
  /** Use the plain-SIMD build: the same bits on every machine. */
  readonly strict?: boolean;
  /** Most bytes of weights kept inside WebAssembly memory; sets beyond it stream in. */
  readonly residentWeightBytes?: number;
  /** Run on the calling thread, as where SharedArrayBuffer or workers are missing. */
  readonly inline?: boolean;
  /**
   * Called after each run of a program with the milliseconds of each of its plan's steps, barrier
   * included. For profiles: steps are then called one by one.
   */
  readonly onStepTimes?: (plan: Plan, milliseconds: Float64Array) => void;
}

/** Starts the wasm backend. Throws `backend_unavailable` where WebAssembly SIMD is missing. */
export async function createWasmBackend(options: WasmBackendOptions = {}): Promise<WasmBackend> {
  const threads = options.threads ?? Math.min(cpuCount(), MOST_THREADS);
  if (!Number.isInteger(threads) || threads < 1 || threads > THREAD_LIMIT) {
    throw new HalftoneError("invalid_argument", "Cannot start the wasm backend", {
      field: "threads",
      found: threads,
      expected: `a whole number from 1 to ${THREAD_LIMIT}`,
    });
  }
  const residentBytes = options.residentWeightBytes ?? DEFAULT_RESIDENT_BYTES;
  if (!Number.isSafeInteger(residentBytes) || residentBytes < 0) {
    throw new HalftoneError("invalid_argument", "Cannot start the wasm backend", {
      field: "residentWeightBytes",
      found: residentBytes,
      expected: "a whole number of bytes from 0",
    });
  }
  const inline = options.inline ?? !hasSharedWorkers();
  const strict = options.strict ?? false;
  const { onStepTimes } = options;
  const engine = await Engine.start({ threads, strict, inline, timed: onStepTimes !== undefined });
  return new WasmBackend(engine, residentBytes, onStepTimes);
}

/** Weights and plans in WebAssembly memory. */
export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly limits: BackendLimits;
  readonly #engine: Engine;
  readonly #engineBytes: number;
  readonly #sets = new Set<WasmWeightSet>();
  readonly #programs = new Set<WasmProgram>();
  readonly #onStepTimes: WasmBackendOptions["onStepTimes"];
  #outsideBytes = 0;
  #peak = 0;

  /** Use `createWasmBackend`. */
  constructor(
    engine: Engine,
    residentWeightBytes: number,
    onStepTimes?: WasmBackendOptions["onStepTimes"],
  ) {
    this.#engine = engine;
    this.#onStepTimes = onStepTimes;
    this.#engineBytes = engine.memory.allocator.used.scratch;
    this.limits = {
      residentWeightBytes,
      arenaBytes: Math.max(ADDRESSABLE_BYTES - residentWeightBytes, GIBIBYTE),
    };
  }

  /** Which build of the kernels runs: "plain" or "relaxed" SIMD. */
  get build(): "plain" | "relaxed" {
    return this.#engine.buildName;
  }

  /** Workers that share the work. */
  get threads(): number {
    return this.#engine.threads;
  }

  supports(_op: OpName): boolean {
    return true;
  }

  scratchBytes(plan: Plan, streamed?: boolean): number {
    const bytes = unitBytes(plan.weights);
    const { residentWeightBytes } = this.limits;
    const streams = streamed ?? bytes > residentWeightBytes;
    const slots = streams ? planSlots(plan, residentWeightBytes) : undefined;
    return this.#engineBytes + totalProgramBytes(programBytes(plan, slots));
  }

  weightBytes(plan: Plan): number {
    return unitBytes(plan.weights);
  }

  async loadWeights(
    weights: readonly PlanWeight[],
    source: WeightSource,
    options: LoadOptions = {},
  ): Promise<WeightSet> {
    this.#engine.checkOpen();
    const bytes = unitBytes(weights);
    const { used } = this.#engine.memory.allocator;
    const fits = used.weights + bytes <= this.limits.residentWeightBytes;
    const isResident = options.streamed === undefined ? fits : !options.streamed;
    const onRelease = (set: WasmWeightSet) => this.#forget(set);
    const placement = { isResident, onRelease };
    if (!isResident) this.#addOutside(bytes);
    try {
      const set = await WasmWeightSet.load(this.#engine, weights, source, placement, options);
      this.#sets.add(set);
      this.#notePeak();
      return set;
    } catch (error) {
      if (!isResident) this.#addOutside(-bytes);
      throw error;
    }
  }

  async compile(plan: Plan, weights: WeightSet): Promise<Program> {
    this.#engine.checkOpen();
    if (!(weights instanceof WasmWeightSet) || !this.#sets.has(weights)) {
      throw new HalftoneError("invalid_argument", "Cannot compile: weights of another backend");
    }
    const program = await WasmProgram.compile(
      plan,
      this.#engine,
      weights,
      this.limits.residentWeightBytes,
      (released) => this.#programs.delete(released),
      (times) => this.#onStepTimes?.(plan, times),
    );
    this.#programs.add(program);
    this.#notePeak();
    return program;
  }

  memory(): MemoryUse {
    this.#notePeak();
    const { weights, arena, scratch } = this.#engine.memory.allocator.used;
    return { weights: weights + this.#outsideBytes, arena, scratch, peak: this.#peak };
  }

  async close(): Promise<void> {
    await this.#engine.close();
    for (const program of [...this.#programs]) program.release();
    for (const set of [...this.#sets]) await set.release();
  }

  #forget(set: WasmWeightSet): void {
    if (this.#sets.delete(set) && !set.isResident) this.#addOutside(-set.bytes);
  }

  #addOutside(bytes: number): void {
    this.#notePeak();
    this.#outsideBytes += bytes;
    this.#notePeak();
  }

  /** Inside and outside bytes are highest together just after either grows. */
  #notePeak(): void {
    const { weights, arena, scratch } = this.#engine.memory.allocator.used;
    this.#peak = Math.max(this.#peak, weights + arena + scratch + this.#outsideBytes);
  }
}
