/**
 * A maker of pictures on a thread of its own: planning, quantizing and PNG encoding would keep the
 * HTTP thread from answering for hundreds of milliseconds.
 */

import { type ErrorCode, HalftoneError } from "../src/errors.ts";
import type { LoadProgress } from "../src/pipelines/flux_options.ts";
import { spawnWorker } from "../src/runtime/workers.ts";
import type { SpawnedWorker } from "../src/runtime/workers.ts";
import type { MadePictures, PictureJob, PictureMaker } from "./picture_maker.ts";
import {
  type MakerAnswer,
  type MakerRequest,
  OPENING,
  type PipelineSetup,
  type PlainError,
} from "./worker_protocol.ts";

/** How to start. */
export interface WorkerMakerOptions {
  readonly setup: PipelineSetup;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
  readonly onWarning?: (message: string) => void;
}

/** Starts the thread and opens the pipeline on it. Throws what opening throws. */
export async function startWorkerMaker(options: WorkerMakerOptions): Promise<PictureMaker> {
  const maker = new WorkerMaker(options);
  try {
    await maker.open(options.signal);
    return maker;
  } catch (error) {
    maker.terminate();
    throw error;
  }
}

class WorkerMaker implements PictureMaker {
  readonly model: string;
  readonly defaults: PictureMaker["defaults"];
  readonly #setup: PipelineSetup;
  readonly #worker: SpawnedWorker;
  readonly #waiting = new Map<number, PromiseWithResolvers<MadePictures | undefined>>();
  readonly #closed = Promise.withResolvers<void>();
  readonly #onProgress: WorkerMakerOptions["onProgress"];
  readonly #onWarning: WorkerMakerOptions["onWarning"];
  #nextId = OPENING;

  constructor({ setup, onProgress, onWarning }: WorkerMakerOptions) {
    this.model = setup.model;
    const { maxSequenceLength: _, ...defaults } = setup.defaults;
    this.defaults = defaults;
    this.#setup = setup;
    this.#onProgress = onProgress;
    this.#onWarning = onWarning;
    this.#worker = spawnWorker(new URL("./flux_worker.ts", import.meta.url), "pictures");
    this.#worker.onMessage((message) => this.#receive(message as MakerAnswer));
    this.#worker.onError((error) => this.#failAll(error));
  }

  async open(signal: AbortSignal | undefined): Promise<void> {
    await this.#ask(() => ({ kind: "open", setup: this.#setup }), signal);
  }

  async make(job: PictureJob, signal: AbortSignal): Promise<MadePictures> {
    return (await this.#ask((id) => ({ kind: "make", id, job }), signal))!;
  }

  async close(): Promise<void> {
    this.#post({ kind: "close" });
    await this.#closed.promise;
    this.terminate();
  }

  terminate(): void {
    this.#worker.terminate();
  }

  /** Sends a request and waits for its answer, which comes soon after the signal fires. */
  async #ask(
    request: (id: number) => MakerRequest,
    signal: AbortSignal | undefined,
  ): Promise<MadePictures | undefined> {
    signal?.throwIfAborted();
    const id = this.#nextId++;
    const waiting = Promise.withResolvers<MadePictures | undefined>();
    this.#waiting.set(id, waiting);
    const abort = () => this.#post({ kind: "abort", id });
    signal?.addEventListener("abort", abort, { once: true });
    try {
      this.#post(request(id));
      return await waiting.promise;
    } finally {
      this.#waiting.delete(id);
      signal?.removeEventListener("abort", abort);
    }
  }

  #post(message: MakerRequest): void {
    this.#worker.post(message);
  }

  #receive(answer: MakerAnswer): void {
    switch (answer.kind) {
      case "progress":
        return this.#onProgress?.(answer.progress);
      case "warning":
        return this.#onWarning?.(answer.message);
      case "opened":
        return this.#waiting.get(OPENING)?.resolve(undefined);
      case "made":
        return this.#waiting.get(answer.id)?.resolve(answer.made);
      case "failed":
        return this.#waiting.get(answer.id)?.reject(errorOf(answer.error));
      case "closed":
        return this.#closed.resolve();
    }
  }

  #failAll(error: HalftoneError): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#closed.resolve();
  }
}

/** The message holds the detail already. */
function errorOf({ code, message }: PlainError): Error {
  return code === undefined ? new Error(message) : new HalftoneError(code as ErrorCode, message);
}
