/**
 * Contenders in processes of their own. The child prints one JSON line `{ "version", "settings" }` when it
 * is ready; then it answers each line: `run N` with `{ "wall", "processor" }` in seconds, `output FILE` by
 * writing its last result there as raw float32 and printing `{}`.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Contender, Sample } from "./measure.ts";

/**
 * Starts a child and waits until it is ready; throws what it wrote to stderr when it ends before. With a limit in
 * seconds the child does its work once within that time, or is stopped.
 */
export async function startChild(
  name: string,
  command: string,
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  limit?: number,
): Promise<Contender> {
  const child = new Child(command, words, environment);
  const { version, settings } = await child.answer() as {
    version: string;
    settings?: Record<string, unknown>;
  };
  if (limit !== undefined) await child.askWithin("run 0", limit);
  return {
    name,
    version,
    settings,
    run: async (round) => await child.ask(`run ${round}`) as Sample,
    output: () => child.output(),
    close: () => child.end(),
  };
}

/** A process that answers each line with a line of JSON. */
export class Child {
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  #errors = "";
  #ended = false;
  #wake: () => void = () => {};

  constructor(
    command: string,
    words: readonly string[],
    environment: Readonly<Record<string, string>>,
  ) {
    const env = { ...process.env, ...environment };
    this.#process = spawn(command, words, { env, stdio: ["pipe", "pipe", "pipe"] });
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#process.stdin!.on("error", () => {}); // that it ended says more
    const lines = createInterface({ input: this.#process.stdout! });
    lines.on("line", (line) => {
      if (!line.startsWith("{")) return; // libraries print what they like
      this.#lines.push(line);
      this.#wake();
    });
    this.#process.on("error", (error) => this.#end(error.message));
    this.#process.on("close", (code, signal) => {
      this.#end(code === null ? `it was ended by ${signal}` : `it ended with code ${code}`);
    });
  }

  #end(reason: string): void {
    this.#ended = true;
    this.#errors = `${this.#errors.trimEnd()}\n${reason}`;
    this.#wake();
  }

  /** The next answer; throws what it wrote to stderr when it has ended. */
  async answer(): Promise<unknown> {
    while (this.#lines.length === 0) {
      if (this.#ended) throw new Error(this.#errors.trim().split("\n").slice(-2).join("; "));
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return JSON.parse(this.#lines.shift()!);
  }

  /** The answer to a line. */
  async ask(line: string): Promise<unknown> {
    this.#process.stdin!.write(`${line}\n`);
    return await this.answer();
  }

  /** Stops the child when it has not answered after so many seconds. */
  async askWithin(line: string, seconds: number): Promise<unknown> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#process.kill("SIGKILL");
    }, 1000 * seconds);
    try {
      return await this.ask(line);
    } catch (error) {
      throw isLate ? new Error(`one run was not done after ${seconds} s`) : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The child's last result. */
  async output(): Promise<Float32Array> {
    const folder = mkdtempSync(join(tmpdir(), "halftone-bench-"));
    try {
      const path = join(folder, "output.f32");
      await this.ask(`output ${path}`);
      return new Float32Array(Uint8Array.from(readFileSync(path)).buffer);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  /** Lets it end. */
  end(): Promise<void> {
    this.#process.stdin!.end();
    return this.#ending();
  }

  /** Ends it. */
  stop(): Promise<void> {
    this.#process.kill("SIGKILL");
    return this.#ending();
  }

  async #ending(): Promise<void> {
    while (!this.#ended) await new Promise<void>((resolve) => this.#wake = resolve);
  }
}
