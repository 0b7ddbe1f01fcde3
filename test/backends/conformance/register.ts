/** Registers the suite as tests of one subject. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Backend } from "../../../src/backends/backend.ts";
import { type ConformanceCase, judge, planCase, runCase, runPlanOfCase } from "./cases.ts";
import { guardPlan } from "./guarded.ts";
import { FAMILIES, type Subject } from "./suite.ts";

/** Registers one test that runs every case between guard zones, in memory that starts as NaN. */
export function registerGuardZones(subject: Subject): void {
  test(`${subject.name}: no op reads or writes outside its operands`, async () => {
    const backend = await subject.create();
    try {
      const cases = Object.values(FAMILIES).flatMap((family) => family());
      const asked = cases.filter((testCase) => !subject.skip?.(testCase));
      const failures: string[] = [];
      for (const testCase of asked) failures.push(...await guardFailures(backend, testCase));
      assert.equal(failures.length, 0, describeFailures(failures, asked.length));
    } finally {
      await backend.close();
    }
  });
}

async function guardFailures(backend: Backend, testCase: ConformanceCase): Promise<string[]> {
  const { plan, poison, zones } = guardPlan(planCase(backend, testCase));
  const inputs = [...poison, ...Object.entries(testCase.inputs)];
  return await runPlanOfCase(backend, testCase, plan, inputs, (program) => {
    const failure = judge(testCase, program.read("output"));
    const broken = zones.filter((zone) => !program.read(zone).toFloat32().every(Number.isNaN));
    const messages = broken.map((zone) => `${testCase.op}: ${testCase.name}: ${zone} is written`);
    return failure ? [`in NaN memory: ${failure}`, ...messages] : messages;
  });
}

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
