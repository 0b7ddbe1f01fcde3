/**
 * The workers that quantize. They start with the first large weight and end by themselves when there has
 * been nothing to do for a moment, so that nobody has to end them and no process waits for them.
 */

import { HalftoneError } from "../errors.ts";
import { type SpawnedWorker, spawnWorker } from "../runtime/workers.ts";
import type { QuantizeAnswer, QuantizeRequest, SharedJob, WorkPlace } from "./quantize_worker.ts";
import { quantizeModule } from "./wasm_kernels.ts";

/** Milliseconds without work after which workers end. */
const PATIENCE = 250;

interface Pending {
  resolve(answer: QuantizeAnswer): void;
  reject(error: HalftoneError): void;
}

class QuantizeWorker {
  readonly #worker: SpawnedWorker;
  readonly #pending: Pending[] = [];
  #failure: HalftoneError | undefined;

  private constructor(index: number) {
    const url = new URL("./quantize_worker.ts", import.meta.url);
    this.#worker = spawnWorker(url, `halftone-quantize-${index}`);
    this.#worker.onMessage((message) => this.#settle(message as QuantizeAnswer));
    this.#worker.onError((error) => this.#fail(error));
  }

  /** Starts a worker and waits until it stands ready. */
  static async start(index: number, module: WebAssembly.Module): Promise<QuantizeWorker> {
    const worker = new QuantizeWorker(index);
    await worker.#ask({ kind: "start", module });
    return worker;
  }

  /** Does a share of a job; false when kernels do not take a value of it. */
  async run(job: SharedJob, place?: WorkPlace): Promise<boolean> {
    const answer = await this.#ask({ kind: "job", ...job, place });
    return answer.kind === "done" && answer.finite;
  }

  get isBroken(): boolean {
    return this.#failure !== undefined;
  }

  end(): void {
    this.#worker.terminate();
  }

  #ask(request: QuantizeRequest): Promise<QuantizeAnswer> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#worker.post(request);
    });
  }

  #settle(answer: QuantizeAnswer): void {
    if (answer.kind === "failed") {
      const message = "Cannot go on: a worker that quantizes failed";
      return this.#fail(new HalftoneError("backend_failed", message, { found: answer.reason }));
    }
    this.#pending.shift()?.resolve(answer);
  }

  #fail(error: HalftoneError): void {
    this.#failure ??= error;
    for (const { reject } of this.#pending.splice(0)) reject(error);
  }
}

/** Workers of this process; whoever quantizes shares them. */
class QuantizePool {
  #workers: Promise<QuantizeWorker>[] = [];
  #users = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Lends `count` workers to an action. */
  async use<Result>(
    count: number,
    action: (workers: readonly QuantizeWorker[]) => Promise<Result>,
  ): Promise<Result> {
    this.#users++;
    clearTimeout(this.#timer);
    try {
      return await action(await this.#lend(count));
    } finally {
      this.#users--;
      if (this.#users === 0) this.#timer = setTimeout(() => this.#end(), PATIENCE);
    }
  }

  async #lend(count: number): Promise<readonly QuantizeWorker[]> {
    const module = await quantizeModule({ shared: true });
    while (this.#workers.length < count) {
      this.#workers.push(QuantizeWorker.start(this.#workers.length, module));
    }
    try {
      const workers = await Promise.all(this.#workers.slice(0, count));
      if (!workers.some((worker) => worker.isBroken)) return workers;
    } catch (error) {
      this.#end(); // whoever comes next may have more luck
      throw error;
    }
    this.#end();
    return await this.#lend(count);
  }

  #end(): void {
    for (const worker of this.#workers.splice(0)) worker.then((w) => w.end(), () => {});
  }
}

/** The pool of this process. */
export const quantizePool: QuantizePool = new QuantizePool();
export type { QuantizeWorker };
