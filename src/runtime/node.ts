/**
 * The `node:` modules, which Deno and Bun both have, looked up when they are used: importing this
 * module in a browser does nothing and fails only on use.
 */

import type * as Crypto from "node:crypto";
import type * as FsPromises from "node:fs/promises";
import type * as Os from "node:os";
import type * as Process from "node:process";
import { HalftoneError } from "../errors.ts";

interface BuiltinModules {
  "node:crypto": typeof Crypto;
  "node:fs/promises": typeof FsPromises;
  "node:os": typeof Os;
}

type NodeProcess = typeof Process;

/** The process object, or undefined in a browser. */
export function nodeProcess(): NodeProcess | undefined {
  return (globalThis as { process?: NodeProcess }).process;
}

/** A built-in module; throws `unsupported` where there is none. */
export function builtin<Name extends keyof BuiltinModules>(name: Name): BuiltinModules[Name] {
  const module = nodeProcess()?.getBuiltinModule?.(name);
  if (module === undefined) {
    throw new HalftoneError("unsupported", `Cannot use ${name} in a browser`, {
      remedy: "Give the model as bytes or over HTTP, or run under Deno or Bun.",
    });
  }
  return module as unknown as BuiltinModules[Name];
}
