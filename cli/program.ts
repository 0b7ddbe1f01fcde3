/** The command line as a whole. */

import { Command } from "commander";
import { inspectCommand } from "./commands/inspect.ts";

/** All commands; usage errors are thrown, not exited on. */
export function createProgram(): Command {
  const program = new Command("halftone")
    .description("Pictures from text with quantized Flux models")
    .showHelpAfterError("(--help lists the options)")
    .exitOverride();
  const commands = [
    inspectCommand(),
  ];
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program));
  return program;
}
