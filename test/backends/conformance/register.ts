/** Registers the suite as tests of one subject. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Backend } from "../../../src/backends/backend.ts";
import { type ConformanceCase, judge, runCase } from "./cases.ts";
import { FAMILIES, type Subject } from "./suite.ts";

/** How many failures of a family are shown. */
const SHOWN = 12;

/** Registers one test per family; the subject's backend is made once and closed at the end. */
export function registerConformance(subject: Subject): void {
  let backend: Promise<Backend> | undefined;
  const open = () => backend ??= subject.create();
  after(async () => await (await backend)?.close());
  for (const [family, cases] of Object.entries(FAMILIES)) {
    test(`${subject.name}: ${family} agree with float64`, async () => {
      await runFamily(await open(), subject, cases());
    });
  }
}

async function runFamily(backend: Backend, subject: Subject, cases: ConformanceCase[]) {
  const failures: string[] = [];
  const skipped = new Map<string, number>();
  for (const testCase of cases) {
    const reason = subject.skip?.(testCase) ?? null;
    if (reason) skipped.set(reason, (skipped.get(reason) ?? 0) + 1);
    else failures.push(...await failuresOf(backend, testCase));
  }
  for (const [reason, count] of skipped) {
    console.log(`${subject.name}: ${count} of ${cases.length} cases skipped: ${reason}`);
  }
  assert.equal(failures.length, 0, describeFailures(failures, cases.length));
}

async function failuresOf(backend: Backend, testCase: ConformanceCase): Promise<string[]> {
  try {
    const failure = judge(testCase, await runCase(backend, testCase));
    return failure ? [failure] : [];
  } catch (error) {
    return [`${testCase.op}: ${testCase.name}: ${error}`];
  }
}

function describeFailures(failures: readonly string[], total: number): string {
  const more = failures.length > SHOWN ? `\n  and ${failures.length - SHOWN} more` : "";
  return `${failures.length} of ${total} cases fail:\n  ${
    failures.slice(0, SHOWN).join("\n  ")
  }${more}`;
}
