/** A maker without a model: its jobs end when the test says so, or at once. */

import { HalftoneError } from "../../src/errors.ts";
import type { MadePictures, PictureJob, PictureMaker } from "../../server/picture_maker.ts";

/** A job that is running. */
export interface FakeRun {
  readonly job: PictureJob;
  readonly signal: AbortSignal;
  finish(): void;
  fail(error: unknown): void;
}

/** Bytes that a fake picture is made of. */
export const FAKE_PNG: Uint8Array = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 1, 2, 3);

/** Records its jobs; with `held`, each waits for `finish`, `fail` or its signal. */
export class FakeMaker implements PictureMaker {
  readonly model = "demo";
  readonly defaults = { width: 128, height: 96, numInferenceSteps: 7, guidanceScale: 2.5 };
  readonly runs: FakeRun[] = [];
  /** Jobs running at once, at most. */
  mostAtOnce = 0;
  closed = false;
  readonly #held: boolean;
  #running = 0;

  constructor(options: { held?: boolean } = {}) {
    this.#held = options.held ?? false;
  }

  async make(job: PictureJob, signal: AbortSignal): Promise<MadePictures> {
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#running);
    try {
      await this.#work(job, signal);
    } finally {
      this.#running--;
    }
    const files = Array.from({ length: job.numImages }, () => FAKE_PNG);
    return { files, width: job.width ?? 0, height: job.height ?? 0 };
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  #work(job: PictureJob, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.runs.push({ job, signal, finish: resolve, fail: reject });
      if (!this.#held) return resolve();
      signal.addEventListener("abort", () => {
        // A real pipeline needs a moment to stop.
        setTimeout(() => reject(new HalftoneError("aborted", "Cannot finish the picture")), 5);
      });
    });
  }
}

/** Waits until a condition holds; fails the test after two seconds. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 2000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("the condition never held");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
