/** What the runtime and the machine are, and the process's own surroundings. */

import { builtin, nodeProcess } from "./node.ts";

/** The runtimes halftone knows. */
export type RuntimeName = "deno" | "bun" | "node" | "browser";

/** Bytes of main memory. */
export interface MachineMemory {
  /** Bytes the machine has. */
  readonly total: number;
  /** Bytes nobody uses. */
  readonly free: number;
}

interface RuntimeGlobals {
  Deno?: { version: { deno: string } };
  Bun?: { version: string };
  navigator?: { hardwareConcurrency?: number; userAgent?: string };
}

const globals = globalThis as RuntimeGlobals;

/** The runtime this runs in. */
export function runtimeName(): RuntimeName {
  if (globals.Deno !== undefined) return "deno";
  if (globals.Bun !== undefined) return "bun";
  return nodeProcess()?.versions?.node === undefined ? "browser" : "node";
}

/** The runtime's version; in a browser, its user agent. */
export function runtimeVersion(): string {
  return globals.Deno?.version.deno ?? globals.Bun?.version ??
    nodeProcess()?.versions?.node ?? globals.navigator?.userAgent ?? "unknown";
}

/** Logical processors; at least 1. */
export function cpuCount(): number {
  return Math.max(1, globals.navigator?.hardwareConcurrency ?? 1);
}

/** The processor's own name, or undefined where the runtime hides it. */
export function cpuModel(): string | undefined {
  return nodeProcess() && builtin("node:os").cpus()[0]?.model.trim();
}

/** The operating system and architecture, such as "linux x64", or "browser". */
export function platformName(): string {
  const process = nodeProcess();
  return process?.platform ? `${process.platform} ${process.arch}` : "browser";
}

/** Main memory, or undefined where the runtime hides it. */
export function memoryBytes(): MachineMemory | undefined {
  if (nodeProcess() === undefined) return undefined;
  const os = builtin("node:os");
  return { total: os.totalmem(), free: os.freemem() };
}

/** What measurements say of where they were taken. */
export interface MachineSummary {
  readonly processor: string | undefined;
  readonly processors: number;
  readonly memoryBytes: number | undefined;
  /** Such as "linux x64". */
  readonly platform: string;
  /** With its version, such as "deno 2.9.6". */
  readonly runtime: string;
}

/** The machine and runtime in short. */
export function machineSummary(): MachineSummary {
  return {
    processor: cpuModel(),
    processors: cpuCount(),
    memoryBytes: memoryBytes()?.total,
    platform: platformName(),
    runtime: `${runtimeName()} ${runtimeVersion()}`,
  };
}

/** Bytes of main memory this process holds, or undefined where the runtime hides it. */
export function processMemoryBytes(): number | undefined {
  return nodeProcess()?.memoryUsage?.().rss;
}

/** The command line after the script's name. */
export function commandLineArguments(): string[] {
  return nodeProcess()?.argv?.slice(2) ?? [];
}

/** An environment variable, or undefined when it is unset or empty. */
export function environmentVariable(name: string): string | undefined {
  return nodeProcess()?.env?.[name] || undefined;
}

/** The user's home folder, or undefined in a browser. */
export function homeFolder(): string | undefined {
  return nodeProcess() && builtin("node:os").homedir();
}

/** The folder for temporary files. */
export function temporaryFolder(): string {
  return builtin("node:os").tmpdir();
}

/** The folder that relative paths start from, or undefined in a browser. */
export function currentFolder(): string | undefined {
  return nodeProcess()?.cwd?.();
}

/** Ends the process. */
export function exitProcess(code: number): never {
  nodeProcess()?.exit(code);
  throw new Error("a browser page cannot exit");
}

/** The code that the process will end with when its work is done. */
export function setExitCode(code: number): void {
  const process = nodeProcess();
  if (process !== undefined) process.exitCode = code;
}

/** Whether messages go to a terminal. */
export function isTerminal(stream: "stdout" | "stderr" = "stderr"): boolean {
  return nodeProcess()?.[stream]?.isTTY === true;
}

/** Columns of the terminal; 80 when unknown. */
export function terminalColumns(): number {
  return nodeProcess()?.stderr?.columns ?? 80;
}

/** Writes text to standard output or standard error, without adding a line end. */
export function writeText(text: string, stream: "stdout" | "stderr" = "stdout"): void {
  nodeProcess()?.[stream]?.write(text);
}

/** Calls `handler` on Ctrl-C or a request to end; returns a function that stops listening. */
export function onInterrupt(handler: (signal: "SIGINT" | "SIGTERM") => void): () => void {
  const process = nodeProcess();
  const interrupt = () => handler("SIGINT");
  const terminate = () => handler("SIGTERM");
  process?.on("SIGINT", interrupt);
  process?.on("SIGTERM", terminate);
  return () => {
    process?.off("SIGINT", interrupt);
    process?.off("SIGTERM", terminate);
  };
}
