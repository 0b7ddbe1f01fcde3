/**
 * Rows measured in another process, so that a row that fails, ends its process or never ends takes no other with it: a
 * device stays in error for a process in which a kernel failed.
 */

import { createInterface } from "node:readline";
import process from "node:process";
import type { Outcome, Row } from "./row_log.ts";
import { Child } from "./suite/child_contender.ts";

const NOT_STARTED = "not started: the time was used up";

/** How rows are measured. */
export interface RowsOptions {
  /** The command of a process that serves the rows. */
  readonly command: readonly [program: string, ...words: string[]];
  /** Whether no further row may start. */
  isOver(): boolean;
  /** Seconds after which a row is stopped; none by default. */
  readonly rowSeconds?: number | undefined;
  /** Told when a row starts. */
  starts(index: number): void;
  record(index: number, outcome: Outcome): Promise<void>;
}

/** Measures as many rows as the time allows, all in one process as long as none fails. */
export async function runRows(count: number, options: RowsOptions): Promise<void> {
  let child: Child | null = null;
  for (let index = 0; index < count; index++) {
    if (options.isOver()) {
      await options.record(index, { failed: NOT_STARTED });
      continue;
    }
    options.starts(index);
    child ??= new Child(options.command[0], options.command.slice(1), {});
    const outcome = await ask(child, index, options.rowSeconds);
    if (outcome.failed !== undefined) {
      await child.stop();
      child = null;
    }
    await options.record(index, outcome);
  }
  await child?.stop();
}

async function ask(child: Child, index: number, seconds: number | undefined): Promise<Outcome> {
  const line = String(index);
  try {
    const found = seconds === undefined ? child.ask(line) : child.askWithin(line, seconds);
    return await found as Outcome;
  } catch (error) {
    return { failed: messageOf(error) };
  }
}

/** The other side: measures each row whose number is a line of standard input. */
export async function serveRows(rows: readonly Row[]): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await outcomeOf(rows[Number(line)]!)));
  }
}

async function outcomeOf(row: Row): Promise<object> {
  const started = performance.now();
  const warnings: string[] = [];
  try {
    const found = await row.measure((message) => void warnings.push(message));
    return { ...found, warnings, rowSeconds: (performance.now() - started) / 1000 };
  } catch (error) {
    return { failed: messageOf(error), warnings };
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
