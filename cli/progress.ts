/** How far a long command is: a bar on a terminal, plain lines elsewhere, always on stderr. */

import cliProgress from "cli-progress";
import process from "node:process";
import { isTerminal, writeText } from "../src/runtime/system.ts";

/** Shows one stage at a time. */
export interface Progress {
  /** Advances a stage; it ends when `done` reaches `total`, or another stage begins. */
  show(stage: string, done: number, total: number, unit: string): void;
  /** Says something between stages. */
  say(text: string): void;
  /** Ends the stage that is still open. */
  close(): void;
}

/** A bar on a terminal, lines elsewhere. */
export function createProgress(): Progress {
  return isTerminal("stderr") ? new BarProgress() : new LineProgress();
}

class BarProgress implements Progress {
  #bar: cliProgress.SingleBar | undefined;
  #stage = "";

  show(stage: string, done: number, total: number, unit: string): void {
    if (stage !== this.#stage || this.#bar === undefined) this.#begin(stage, total, unit);
    this.#bar?.update(done);
    if (done >= total) this.close();
  }

  say(text: string): void {
    this.close();
    writeText(`${text}\n`, "stderr");
  }

  close(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #begin(stage: string, total: number, unit: string): void {
    this.close();
    this.#stage = stage;
    this.#bar = new cliProgress.SingleBar({
      format: `${stage.padEnd(27)} {bar} {value}/{total} ${unit}, {duration_formatted}`,
      barCompleteChar: "=",
      barIncompleteChar: "-",
      hideCursor: true,
      gracefulExit: false, // Ctrl-C is ours
      stream: process.stderr,
    });
    this.#bar.start(total, 0);
  }
}

/** Seconds between two lines of one stage; steps of the denoising loop get a line each. */
const SECONDS_BETWEEN_LINES = 2;

class LineProgress implements Progress {
  #stage = "";
  #started = 0;
  #lastLine = 0;

  show(stage: string, done: number, total: number, unit: string): void {
    const now = performance.now();
    if (stage !== this.#stage) this.#begin(stage, now);
    const isDue = now - this.#lastLine >= SECONDS_BETWEEN_LINES * 1000;
    if (!isDue && done < total && unit !== "steps") return;
    this.#lastLine = now;
    const seconds = ((now - this.#started) / 1000).toFixed(1);
    this.say(`${stage}: ${done}/${total} ${unit}, ${seconds} s`);
  }

  say(text: string): void {
    writeText(`${text}\n`, "stderr");
  }

  close(): void {
    this.#stage = "";
  }

  #begin(stage: string, now: number): void {
    this.#stage = stage;
    this.#started = now;
    this.#lastLine = now;
  }
}
