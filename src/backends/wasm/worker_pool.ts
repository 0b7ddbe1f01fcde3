/** The persistent workers of a backend: started once, then told by a message to walk a tape together. */

import { HalftoneError } from "../../errors.ts";
import { type SpawnedWorker, spawnWorker } from "../../runtime/workers.ts";
import { markDead } from "./control.ts";
import type { HostMessage, SegmentCopy, WorkerMessage } from "./worker_messages.ts";

/** What starting a pool takes. */
export interface PoolOptions {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Address of the control block, and its words. */
  readonly control: number;
  readonly controlWords: Int32Array;
  /** For each worker, where its scratch begins and where its stack begins (it grows down). */
  readonly workers: readonly { readonly scratch: number; readonly stackTop: number }[];
}

/** What a run came to: 0, or 1 when it ended early; with the milliseconds of each step when asked for. */
export interface RunResult {
  readonly status: number;
  readonly times?: Float64Array;
}

interface Pending {
  resolve(result: RunResult): void;
  reject(error: HalftoneError): void;
}

/** A worker that answers every request with one message. */
class Answerer {
  readonly #worker: SpawnedWorker;
  #pending: Pending | undefined;
  #failure: HalftoneError | undefined;

  constructor(name: string, onFailure: () => void) {
    this.#worker = spawnWorker(new URL("./worker.ts", import.meta.url), name);
    const fail = (error: HalftoneError) => {
      this.#failure ??= error;
      onFailure();
      this.#pending?.reject(error);
    };
    this.#worker.onMessage((message) => {
      const answer = message as WorkerMessage;
      if (answer.kind === "failed") {
        return fail(
          new HalftoneError("backend_failed", "Cannot go on: a wasm worker failed", {
            found: answer.reason,
          }),
        );
      }
      const pending = this.#pending;
      this.#pending = undefined;
      pending?.resolve(answer.kind === "done" ? answer : { status: 0 });
    });
    this.#worker.onError(fail);
  }

  /** Sends a message that has no answer; `transfer` moves buffers instead of copying them. */
  tell(message: HostMessage, transfer?: Transferable[]): void {
    this.#worker.post(message, transfer);
  }

  /** Sends a message and waits for its answer. */
  ask(message: HostMessage): Promise<RunResult> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#worker.post(message);
    });
  }

  /** Ends the worker; whoever waits for it learns that the backend is closed. */
  terminate(): void {
    this.#worker.terminate();
    this.#pending?.reject(new HalftoneError("closed", "Cannot go on: the backend was closed"));
    this.#pending = undefined;
  }
}

/** The workers and the loader. */
export class WorkerPool {
  readonly #options: PoolOptions;
  readonly #workers: Answerer[];
  #loader: Answerer | undefined;
  #loaderStart: Promise<unknown> | undefined;

  private constructor(options: PoolOptions) {
    this.#options = options;
    this.#workers = options.workers.map((_, index) => this.#spawn(`halftone-${index}`));
  }

  /** Starts all workers and waits until they stand ready. */
  static async start(options: PoolOptions): Promise<WorkerPool> {
    const pool = new WorkerPool(options);
    const { module, memory, control } = options;
    const threads = options.workers.length;
    try {
      await Promise.all(pool.#workers.map((worker, thread) =>
        worker.ask({
          kind: "start",
          module,
          memory,
          control,
          thread,
          threads,
          ...options.workers[thread],
        })
      ));
    } catch (error) {
      pool.terminate();
      throw error;
    }
    return pool;
  }

  #spawn(name: string): Answerer {
    return new Answerer(name, () => markDead(this.#options.controlWords));
  }

  /** Walks a tape on all workers and waits for every one; `timed` has the byte offsets of its steps. */
  async run(
    tape: number,
    steps: number,
    streamedProgram?: number,
    timed?: readonly number[],
  ): Promise<RunResult> {
    const work = this.#workers.map((worker) => worker.ask({ kind: "run", tape, steps, timed }));
    if (streamedProgram !== undefined && this.#loader) {
      work.push(this.#loader.ask({ kind: "load", program: streamedProgram }));
    }
    const results = await Promise.allSettled(work);
    const failed = results.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
    const values = results.flatMap((result) => result.status === "fulfilled" ? [result.value] : []);
    return { status: Math.max(...values.map(({ status }) => status)), times: values[0].times };
  }

  /** The loader, which is started first if there is none. */
  async #startedLoader(): Promise<Answerer> {
    const { memory, control } = this.#options;
    this.#loader ??= this.#spawn("halftone-loader");
    await (this.#loaderStart ??= this.#loader.ask({ kind: "start_loader", memory, control }));
    return this.#loader;
  }

  /** Moves a unit to the loader: its buffer here becomes empty. */
  async addUnit(id: number, unit: Uint8Array<ArrayBuffer>): Promise<void> {
    (await this.#startedLoader()).tell({ kind: "add_unit", id, unit }, [unit.buffer]);
  }

  /** Waits until the loader has given the memory of units back; not during a run. */
  async freeUnits(ids: readonly number[]): Promise<void> {
    await this.#loader?.ask({ kind: "free_units", ids });
  }

  /** Tells the loader what a streamed program needs. */
  async addStreamedProgram(
    program: number,
    segments: readonly (readonly SegmentCopy[])[],
  ): Promise<void> {
    (await this.#startedLoader()).tell({ kind: "add_program", program, segments });
  }

  /** Lets the loader forget a streamed program. */
  removeStreamedProgram(program: number): void {
    this.#loader?.tell({ kind: "remove_program", program });
  }

  /** Ends all workers. None of them may be inside a run. */
  terminate(): void {
    for (const worker of this.#workers) worker.terminate();
    this.#loader?.terminate();
  }
}
