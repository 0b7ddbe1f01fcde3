/**
 * The engine under a backend: one memory, one build of the kernels, and either a pool of workers over
 * shared memory or, where there is none, the calling thread itself.
 */

import { HalftoneError } from "../../errors.ts";
import { CONTROL, CONTROL_BYTES, KERNEL_ERROR, mustStop, resetControl } from "./control.ts";
import { EngineMemory } from "./engine_memory.ts";
import { compileKernels, instantiateKernels, type KernelExports } from "./kernel_module.ts";
import { OutsideUnits } from "./outside_units.ts";
import { type RunResult, WorkerPool } from "./worker_pool.ts";
import type { SegmentCopy } from "./worker_messages.ts";

const STACK_BYTES = 65536;
/** How often a worker looks at the barrier before it sleeps: tens of microseconds. */
const SPIN_ROUNDS = 20000;
/** How long the calling thread works before it lets events in, where there are no workers. */
const INLINE_SLICE_MS = 16;

/** Options of an engine. */
export interface EngineOptions {
  readonly threads: number;
  readonly strict: boolean;
  /** Run on the calling thread, without workers or shared memory. */
  readonly inline: boolean;
  /** Time each step, at the price of a call per step. */
  readonly timed?: boolean;
}

/** A tape that lies in memory. */
export interface PlacedTape {
  readonly address: number;
  readonly steps: number;
  /** Byte offset of each step, for running them one by one. */
  readonly starts: readonly number[];
  /** Streamed weights by segment, with the number the loader knows the program by. */
  readonly stream?: {
    readonly program: number;
    readonly segments: readonly (readonly SegmentCopy[])[];
  };
}

/** Memory, kernels and whoever runs them. */
export class Engine {
  readonly memory: EngineMemory;
  readonly buildName: "plain" | "relaxed";
  readonly threads: number;
  readonly isInline: boolean;
  readonly #kernels: KernelExports;
  readonly #control: number;
  readonly #inlineScratch: number;
  #pool: WorkerPool | undefined;
  #queue: Promise<void> = Promise.resolve();
  #closed = false;
  #running = false;
  readonly #regions: number[] = [];
  readonly #timed: boolean;
  /** Only where there are no workers; else the loader has them. */
  readonly #units = new OutsideUnits();
  #unitCount = 0;

  private constructor(
    memory: EngineMemory,
    kernels: KernelExports,
    buildName: "plain" | "relaxed",
    options: EngineOptions,
  ) {
    this.memory = memory;
    this.buildName = buildName;
    this.threads = options.inline ? 1 : options.threads;
    this.isInline = options.inline;
    this.#timed = options.timed ?? false;
    this.#kernels = kernels;
    memory.startAllocating(Number(kernels.__heap_base.value));
    this.#control = this.#allocate(CONTROL_BYTES);
    this.#inlineScratch = options.inline ? this.#allocateWorker().scratch : 0;
    const words = this.#controlWords();
    words.fill(0);
    words[CONTROL.spin] = SPIN_ROUNDS;
  }

  /** Compiles, checks and starts everything. Throws `backend_unavailable` where wasm SIMD is missing. */
  static async start(options: EngineOptions): Promise<Engine> {
    const { name, module } = await compileKernels({
      strict: options.strict,
      shared: !options.inline,
    });
    const memory = new EngineMemory(!options.inline);
    const kernels = await instantiateKernels(module, memory.memory);
    if (kernels.self_test() !== 0) {
      if (!options.strict) return await Engine.start({ ...options, strict: true });
      throw new HalftoneError("backend_unavailable", "Cannot trust this engine's WebAssembly SIMD");
    }
    const engine = new Engine(memory, kernels, name, options);
    if (!options.inline) await engine.#startPool(module);
    return engine;
  }

  async #startPool(module: WebAssembly.Module): Promise<void> {
    const workers = Array.from({ length: this.threads }, () => this.#allocateWorker());
    this.#pool = await WorkerPool.start({
      module,
      memory: this.memory.memory,
      control: this.#control,
      controlWords: this.#controlWords(),
      workers,
    });
  }

  #allocateWorker(): { scratch: number; stackTop: number } {
    const stackTop = this.#allocate(STACK_BYTES) + STACK_BYTES;
    return { scratch: this.#allocate(this.#kernels.scratch_bytes()), stackTop };
  }

  #allocate(bytes: number): number {
    const region = this.memory.allocator.allocate(bytes, "scratch");
    this.#regions.push(region);
    return region;
  }

  #controlWords(): Int32Array {
    return this.memory.words(this.#control, CONTROL_BYTES / 4);
  }

  /** Takes over a weight's unit that is to stay outside the memory and stream in; gives its number. */
  async addUnit(unit: Uint8Array<ArrayBuffer>): Promise<number> {
    this.checkOpen();
    const id = ++this.#unitCount;
    if (this.#pool) await this.#pool.addUnit(id, unit);
    else this.#units.add(id, unit);
    return id;
  }

  /** Gives the memory of units back, after all runs asked for before; it is back when this is done. */
  freeUnits(ids: readonly number[]): Promise<void> {
    const turn = this.#queue.then(async () => {
      this.#units.free(ids);
      if (!this.#closed) await this.#pool?.freeUnits(ids);
    });
    // A loader that failed has told whoever ran; its memory goes when the backend is closed.
    return this.#queue = turn.catch(() => {});
  }

  /** Tells the loader what a streamed program needs. */
  async addStream(program: number, segments: readonly (readonly SegmentCopy[])[]): Promise<void> {
    await this.#pool?.addStreamedProgram(program, segments);
  }

  /** Lets the loader forget a streamed program. */
  removeStream(program: number): void {
    if (!this.#closed) this.#pool?.removeStreamedProgram(program);
  }

  /** Runs a tape after all runs asked for before; gives the milliseconds of its steps when timed. */
  run(tape: PlacedTape, signal?: AbortSignal): Promise<Float64Array | undefined> {
    const turn = this.#queue.then(() => this.#runNow(tape, signal));
    this.#queue = turn.then(() => {}, () => {});
    return turn;
  }

  async #runNow(tape: PlacedTape, signal?: AbortSignal): Promise<Float64Array | undefined> {
    this.checkOpen();
    if (signal?.aborted) throw aborted(signal);
    const words = this.#controlWords();
    resetControl(words);
    const onAbort = () => Atomics.store(this.#controlWords(), CONTROL.abort, 1);
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#running = true;
    try {
      const timed = this.#timed ? tape.starts : undefined;
      const { status, times } = this.#pool
        ? await this.#pool.run(tape.address, tape.steps, tape.stream?.program, timed)
        : await this.#runInline(tape);
      if (status !== 0) this.#raise(signal);
      return times;
    } finally {
      this.#running = false;
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Step by step on this thread, letting events in now and then. */
  async #runInline(tape: PlacedTape): Promise<RunResult> {
    let sliceEnd = performance.now() + INLINE_SLICE_MS;
    this.#loadInline(tape);
    const times = new Float64Array(this.#timed ? tape.starts.length : 0);
    for (const [index, start] of tape.starts.entries()) {
      const before = performance.now();
      const status = this.#kernels.run_tape(
        tape.address + start,
        1,
        this.#control,
        0,
        1,
        this.#inlineScratch,
      );
      if (this.#timed) times[index] = performance.now() - before;
      if (status !== 0) return { status };
      this.#loadInline(tape);
      if (performance.now() < sliceEnd) continue;
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (this.#closed || mustStop(this.#controlWords())) return { status: 1 };
      sliceEnd = performance.now() + INLINE_SLICE_MS;
    }
    return { status: 0, times: this.#timed ? times : undefined };
  }

  /** Does the loader's work: fills the slots that are free. */
  #loadInline(tape: PlacedTape): void {
    const words = this.#controlWords();
    const segments = tape.stream?.segments ?? [];
    for (let next = words[CONTROL.loaded]; next < segments.length; next++) {
      if (next - words[CONTROL.consumed] >= 2) return;
      for (const { unit, to } of segments[next]) this.#units.copy(unit, this.memory.memory, to);
      words[CONTROL.loaded] = next + 1;
    }
  }

  #raise(signal?: AbortSignal): never {
    const words = this.#controlWords();
    const error = words[CONTROL.error];
    const step = words[CONTROL.errorStep];
    if (error === KERNEL_ERROR.gatherRange) {
      throw new HalftoneError("invalid_argument", "Cannot gather: an id is outside the table", {
        field: `step ${step}`,
        found: words[CONTROL.errorValue],
      });
    }
    if (error !== 0) {
      throw new HalftoneError("backend_failed", "Cannot run a step: unknown opcode", {
        field: `step ${step}`,
        found: words[CONTROL.errorValue],
      });
    }
    if (signal?.aborted) throw aborted(signal);
    throw new HalftoneError("closed", "Cannot go on: the backend was closed");
  }

  /** Throws `closed` after `close`. */
  checkOpen(): void {
    if (this.#closed) throw new HalftoneError("closed", "Cannot use the backend: it is closed");
  }

  /** Ends a run in progress within one step, then the workers. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#running) Atomics.store(this.#controlWords(), CONTROL.abort, 1);
    await this.#queue;
    this.#pool?.terminate();
    for (const region of this.#regions) this.memory.allocator.free(region);
  }
}

function aborted(signal: AbortSignal): HalftoneError {
  return new HalftoneError("aborted", "Cannot finish the run: it was aborted", {}, signal.reason);
}
