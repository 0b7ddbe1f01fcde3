/**
 * The `halftone` command.
 *
 * @module
 */

import { CommanderError } from "commander";
import { commandLineArguments, setExitCode, writeText } from "../src/runtime/system.ts";
import { EXIT, failureOf } from "./failure.ts";
import { createProgram } from "./program.ts";

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
