/** What a server is doing, and the pipeline once it is loaded. */

import { ApiError } from "./api_error.ts";
import { drainingError, type JobQueue } from "./job_queue.ts";
import type { PictureMaker } from "./picture_maker.ts";

/** The phases of a server's life. */
export type Phase = "loading" | "ready" | "failed" | "draining";

/** Loads the pipeline beside the running server, so that /healthz answers from the first moment. */
export class ServerState {
  readonly queue: JobQueue;
  #maker: PictureMaker | undefined;
  #failed = false;

  /** `loading` becomes the pipeline; its failure makes the server "failed". */
  constructor(queue: JobQueue, loading: Promise<PictureMaker>) {
    this.queue = queue;
    loading.then((maker) => this.#maker = maker, () => this.#failed = true);
  }

  /** The phase now. */
  get phase(): Phase {
    if (this.queue.draining) return "draining";
    if (this.#failed) return "failed";
    return this.#maker === undefined ? "loading" : "ready";
  }

  /** The pipeline. Throws an `ApiError` (503) when the server does not take requests. */
  get maker(): PictureMaker {
    if (this.queue.draining) throw drainingError();
    if (this.#maker !== undefined) return this.#maker;
    throw new ApiError(this.#failed ? "The model failed to load" : "The model is still loading", {
      status: 503,
      code: this.#failed ? "model_failed" : "model_loading",
      headers: { "Retry-After": "5" },
    });
  }
}
