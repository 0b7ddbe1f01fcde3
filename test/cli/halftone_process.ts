/** Runs the `halftone` command as a user does: as a process, under the runtime of the test. */

import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** What a process left. */
export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running command. */
export interface HalftoneProcess {
  /** What it has said on standard error so far. */
  stderr(): string;
  /** Waits until standard error holds a text; rejects when the process ends without it. */
  says(text: string): Promise<void>;
  kill(signal: "SIGINT" | "SIGTERM"): void;
  readonly finished: Promise<Finished>;
}

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const MAIN = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
/** A command that hangs fails its test instead of stopping all of them. */
const TIME_LIMIT_MS = 120_000;

/** Starts a command; `folder` is where it runs, the repository unless given. */
export function startHalftone(
  words: readonly string[],
  folder: string = ROOT,
  environment: Readonly<Record<string, string>> = {},
): HalftoneProcess {
  const runtime = "Deno" in globalThis ? ["run", "-A", MAIN] : [MAIN];
  const child = spawn(process.execPath, [...runtime, ...words], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", ...environment },
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), TIME_LIMIT_MS);
  const output = collected(child);
  const finished = new Promise<Finished>((resolve) => {
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, ...output });
    });
  });
  return {
    stderr: () => output.stderr,
    says: (text) => untilSaid(child, output, text),
    // Not child.kill: after that Deno reports the signal as the end, whatever the exit code was.
    kill: (signal) => process.kill(child.pid!, signal),
    finished,
  };
}

/** Runs a command to its end. */
export function runHalftone(
  words: readonly string[],
  folder?: string,
  environment?: Readonly<Record<string, string>>,
): Promise<Finished> {
  return startHalftone(words, folder, environment).finished;
}

function collected(child: ChildProcess): { stdout: string; stderr: string } {
  const output = { stdout: "", stderr: "" };
  child.stdout!.on("data", (bytes) => output.stdout += bytes);
  child.stderr!.on("data", (bytes) => output.stderr += bytes);
  return output;
}

function untilSaid(
  child: ChildProcess,
  output: { readonly stderr: string },
  text: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (output.stderr.includes(text)) resolve();
    };
    child.stderr!.on("data", look);
    child.on("close", () => reject(new Error(`never said ${text}: ${output.stderr}`)));
    look();
  });
}
