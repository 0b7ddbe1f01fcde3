/** Linear layers of many rows whose operands a precision rounds. */

import type { Backend } from "../../src/backends/backend.ts";
import type { MatmulPrecision } from "../../src/backends/cuda/matmul_precision.ts";
import { judge, runCase } from "../backends/conformance/cases.ts";
import {
  buildLinearCase,
  ENDINGS,
  formatOf,
  LARGE_FORMATS,
} from "../backends/conformance/weight_cases.ts";
import { operandRounding } from "./rounding.ts";

const SIZES = [
  { m: 67, n: 130, k: 200 },
  { m: 65, n: 33, k: 515 },
  { m: 130, n: 8, k: 64 },
  { m: 300, n: 1, k: 31 },
];
const FORMATS = [...LARGE_FORMATS, "float16"];

/** Every format, size and ending that may meet; the expectation rounds the operands as `as` says. */
export function precisionCases(as: MatmulPrecision) {
  return FORMATS.flatMap((name, f) =>
    SIZES.flatMap((size, s) =>
      [0, 3].map((e) => {
        const ending = ENDINGS[(f + 2 * s + e) % ENDINGS.length]!;
        const format = formatOf(name);
        const budget = format.kind === "dense" ? "linear/dense" : "linear/quantized";
        const round = operandRounding(as);
        const options = { mode: { kind: "float" }, budget, round } as const;
        return buildLinearCase(format, ending, size, 41000 + 100 * f + 10 * s + e, options);
      })
    )
  );
}

/** What a backend gets wrong of them. */
export async function precisionFailures(backend: Backend, as: MatmulPrecision): Promise<string[]> {
  const failures: string[] = [];
  for (const testCase of precisionCases(as)) {
    const failure = judge(testCase, await runCase(backend, testCase));
    if (failure) failures.push(failure);
  }
  return failures;
}
