/** Where the time of a run goes. */

/** The stages that are timed. */
export type TimedStage = "load" | "plan" | "text" | "denoise" | "decode";

/** Seconds per stage. A stage inside another (loading inside text) counts once, as the inner one. */
export interface Timings {
  /** Reading (and quantizing) weights. */
  readonly load: number;
  /** Capturing and placing plans. */
  readonly plan: number;
  /** Encoding prompts. */
  readonly text: number;
  /** All denoising steps, modulation included. */
  readonly denoise: number;
  /** From latents to pixels. */
  readonly decode: number;
  /** Seconds of each denoising step. */
  readonly steps: readonly number[];
  /** Seconds of everything. */
  readonly total: number;
}

/** Adds up seconds per stage. */
export class StageClock {
  readonly #seconds = { load: 0, plan: 0, text: 0, denoise: 0, decode: 0 };
  readonly #steps: number[] = [];
  #current: TimedStage | undefined;
  #since = performance.now();

  /** Runs an action on a stage's account. */
  async measure<Result>(stage: TimedStage, action: () => Promise<Result>): Promise<Result> {
    const outer = this.#switch(stage);
    try {
      return await action();
    } finally {
      this.#switch(outer);
    }
  }

  /** The same for an action that does not wait. */
  measureSync<Result>(stage: TimedStage, action: () => Result): Result {
    const outer = this.#switch(stage);
    try {
      return action();
    } finally {
      this.#switch(outer);
    }
  }

  /** Notes the seconds of one denoising step. */
  addStep(seconds: number): void {
    this.#steps.push(seconds);
  }

  /** What was counted since the last call. */
  take(): Timings {
    this.#switch(this.#current);
    const seconds = { ...this.#seconds };
    const steps = this.#steps.splice(0);
    for (const stage of Object.keys(seconds) as TimedStage[]) this.#seconds[stage] = 0;
    const total = Object.values(seconds).reduce((sum, value) => sum + value, 0);
    return { ...seconds, steps, total };
  }

  #switch(stage: TimedStage | undefined): TimedStage | undefined {
    const now = performance.now();
    if (this.#current !== undefined) this.#seconds[this.#current] += (now - this.#since) / 1000;
    const outer = this.#current;
    this.#current = stage;
    this.#since = now;
    return outer;
  }
}
