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
    const { message } = namingOption(error);
    return { line: `error[${error.code}]: ${oneLine(message)}`, exitCode: EXIT.failed };
  }
  const text = environmentVariable("HALFTONE_DEBUG") !== undefined && error instanceof Error
    ? error.stack ?? error.message
    : oneLine(error instanceof Error ? error.message : String(error));
  return { line: `error[internal]: ${text}`, exitCode: EXIT.failed };
}

/** Options that are not called as the library calls them. */
const OPTION_NAMES: Readonly<Record<string, string>> = {
  numInferenceSteps: "--steps",
  numImagesPerPrompt: "--num-images",
  quantizationConfig: "--quantize",
};

/** Options whose name is the library's in other letters. */
const SAME_NAMES = new Set([
  "width",
  "height",
  "seed",
  "guidanceScale",
  "trueCfgScale",
  "negativePrompt",
  "prompt2",
  "maxSequenceLength",
  "backend",
  "threads",
  "strict",
  "matmulPrecision",
  "dtype",
  "activations",
  "attention",
  "transformer",
  "textEncoder2",
]);

/** The error with the option of the command line where the library names its own; a file's fields stay. */
function namingOption(error: HalftoneError): HalftoneError {
  const { field, file } = error.detail;
  if (field === undefined || file !== undefined) return error;
  const same = SAME_NAMES.has(field) ? kebabCase(field) : undefined;
  const option = Object.hasOwn(OPTION_NAMES, field) ? OPTION_NAMES[field] : same;
  if (option === undefined) return error;
  return new HalftoneError(error.code, error.summary, { ...error.detail, field: option });
}

function kebabCase(name: string): string {
  return `--${name.replace(/[A-Z0-9]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function isAbort(error: unknown): boolean {
  if (error instanceof HalftoneError) return error.code === "aborted";
  return error instanceof DOMException && error.name === "AbortError";
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, " ").trim();
}
