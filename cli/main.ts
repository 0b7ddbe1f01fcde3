/**
 * The `halftone` command.
 *
 * @module
 */

import { CommanderError } from "commander";
import process from "node:process";
import {
  commandLineArguments,
  exitProcess,
  setExitCode,
  writeText,
} from "../src/runtime/system.ts";
import { EXIT, failureOf } from "./failure.ts";
import { createProgram } from "./program.ts";

// `halftone inspect ... | head` closes the pipe early, and that is no error.
process.stdout.on("error", (error: Error & { code?: string }) => {
  if (error.code === "EPIPE") exitProcess(EXIT.ok);
  throw error;
});
setExitCode(await run(commandLineArguments()));

/** Runs one command; returns the exit code. */
async function run(words: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync(words, { from: "user" });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return usageExitCode(error);
    const { line, exitCode } = failureOf(error);
    writeText(`${line}\n`, "stderr");
    return exitCode;
  }
}

/** The library has printed its message already; help that was asked for is no error. */
function usageExitCode(error: CommanderError): number {
  return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
}
