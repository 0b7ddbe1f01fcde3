/** How a command fails: one line on standard error, and an exit code. */

import { HalftoneError } from "../src/errors.ts";
import { environmentVariable } from "../src/runtime/system.ts";

/** The exit codes, as docs/cli.md lists them. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** What to print, and how to end. */
export interface Failure {
  /** Empty when there is nothing to say. */
  readonly line: string;
  readonly exitCode: number;
}

/** The line and exit code of an error that ended a command. */
export function failureOf(error: unknown): Failure {
  if (isAbort(error)) return { line: "interrupted", exitCode: EXIT.interrupted };
  if (error instanceof HalftoneError) {
    return { line: `error[${error.code}]: ${oneLine(error.message)}`, exitCode: EXIT.failed };
  }
  const text = environmentVariable("HALFTONE_DEBUG") !== undefined && error instanceof Error
    ? error.stack ?? error.message
    : oneLine(error instanceof Error ? error.message : String(error));
  return { line: `error[internal]: ${text}`, exitCode: EXIT.failed };
}

function isAbort(error: unknown): boolean {
  if (error instanceof HalftoneError) return error.code === "aborted";
  return error instanceof DOMException && error.name === "AbortError";
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, " ").trim();
}
