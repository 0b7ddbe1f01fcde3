/** The command line as a whole. */

import { Command } from "commander";
import manifest from "../package.json" with { type: "json" };
import { benchCommand } from "./commands/bench.ts";
import { dequantizeCommand } from "./commands/dequantize.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { formatsCommand } from "./commands/formats.ts";
import { generateCommand } from "./commands/generate.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { planCommand } from "./commands/plan.ts";
import { quantizeCommand } from "./commands/quantize.ts";
import { serveCommand } from "./commands/serve.ts";

/** All commands; usage errors are thrown, not exited on. */
export function createProgram(): Command {
  const program = new Command("halftone")
    .description("Pictures from text with quantized Flux models")
    .version(manifest.version, "--version", "print the version")
    .showHelpAfterError("(--help lists the options)")
    .exitOverride();
  const commands = [
    generateCommand(),
    quantizeCommand(),
    dequantizeCommand(),
    inspectCommand(),
    planCommand(),
    formatsCommand(),
    benchCommand(),
    doctorCommand(),
    serveCommand(),
  ];
  for (const command of commands) program.addCommand(inheriting(command, program));
  return program;
}

/** A command, and those under it, that fail as the program does. */
function inheriting(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent);
  for (const child of command.commands) inheriting(child, command);
  return command;
}
