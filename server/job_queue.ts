/** One job at a time, a bounded number waiting, first come first served. */

import { ApiError } from "./api_error.ts";

const FIRST_GUESS_SECONDS = 10;
const WEIGHT_OF_LAST_JOB = 0.3;
const DRAIN_RETRY_SECONDS = "30";

/** A place in the line: resolved when its turn comes, rejected when it leaves before. */
interface Place {
  readonly enter: () => void;
  readonly leave: (reason: unknown) => void;
}

/**
 * The queue in front of the one pipeline. The turn passes on when a job has really ended, so an
 * aborted job that still unwinds never runs beside the next (this is why no queue library: theirs
 * free the slot as soon as the signal fires).
 */
export class JobQueue {
  readonly #limit: number;
  readonly #line: Place[] = [];
  #busy = false;
  #draining = false;
  #secondsPerJob = FIRST_GUESS_SECONDS;
  #onIdle: (() => void)[] = [];

  /** `limit`: jobs that may wait behind the running one. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Jobs waiting. */
  get length(): number {
    return this.#line.length;
  }

  /** Whether a job is running. */
  get busy(): boolean {
    return this.#busy;
  }

  /** Whether the queue has stopped taking jobs. */
  get draining(): boolean {
    return this.#draining;
  }

  /**
   * Runs a job when its turn comes. Throws an `ApiError` at once when the queue is full (429) or
   * draining (503); rejects with the signal's reason when it fires while the job still waits.
   * A running job must watch the signal itself.
   */
  async run<T>(job: () => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    if (this.#draining) throw drainingError();
    if (this.#busy) await this.#wait(signal);
    this.#busy = true;
    try {
      return await this.#timed(job);
    } finally {
      this.#pass();
    }
  }

  /** Takes no more jobs, fails the waiting ones (503) and waits for the running one. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const place of this.#line.splice(0)) place.leave(drainingError());
    if (this.#busy) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  #wait(signal: AbortSignal): Promise<void> {
    if (this.#line.length >= this.#limit) throw this.#fullError();
    return new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#line.splice(this.#line.indexOf(place), 1);
        reject(signal.reason);
      };
      const done = () => signal.removeEventListener("abort", onAbort);
      const place: Place = {
        enter: () => (done(), resolve()),
        leave: (reason) => (done(), reject(reason)),
      };
      this.#line.push(place);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Hands the turn to the next in line; it stays busy between, so that nobody overtakes. */
  #pass(): void {
    const next = this.#line.shift();
    if (next !== undefined) return next.enter();
    this.#busy = false;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  async #timed<T>(job: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await job();
    const seconds = (performance.now() - started) / 1000;
    this.#secondsPerJob += WEIGHT_OF_LAST_JOB * (seconds - this.#secondsPerJob);
    return result;
  }

  #fullError(): ApiError {
    const seconds = Math.max(1, Math.ceil(this.#secondsPerJob * (this.#line.length + 1)));
    return new ApiError(`The queue is full (${this.#limit} requests are waiting)`, {
      status: 429,
      code: "queue_full",
      headers: { "Retry-After": String(seconds) },
    });
  }
}

/** The answer to a request that comes, or still waits, while the server ends. */
export function drainingError(): ApiError {
  return new ApiError("The server is shutting down", {
    status: 503,
    code: "server_draining",
    headers: { "Retry-After": DRAIN_RETRY_SECONDS },
  });
}
