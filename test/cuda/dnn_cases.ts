/** Attention and convolutions whose operands a precision rounds. */

import type { Backend } from "../../src/backends/backend.ts";
import type { MatmulPrecision } from "../../src/backends/cuda/matmul_precision.ts";
import { attentionCases } from "../backends/conformance/attention_cases.ts";
import { type ConformanceCase, judge, runCase } from "../backends/conformance/cases.ts";
import { conv2dCases } from "../backends/conformance/product_cases.ts";
import { operandRounding } from "./rounding.ts";

/** What rounds to the largest number of a type at most. */
const LARGEST = { float16: 65520, bfloat16: Infinity } as const;

/** The cases that cuDNN computes in a precision. */
export function dnnCases(precision: MatmulPrecision): ConformanceCase[] {
  const round = operandRounding(precision);
  switch (precision) {
    case "float32":
      return conv2dCases();
    case "tensorfloat32":
      return conv2dCases({ round: round!, budget: "conv2d" });
    case "float16":
    case "bfloat16":
      return [
        ...conv2dCases({
          round: round!,
          largest: LARGEST[precision],
          budget: `conv2d/${precision}`,
        }),
        ...attentionCases({ round: round!, budget: `attention/${precision}` }),
      ];
  }
}

/** What a backend gets wrong of some cases. */
export async function caseFailures(
  backend: Backend,
  cases: readonly ConformanceCase[],
): Promise<string[]> {
  const failures: string[] = [];
  for (const testCase of cases) {
    const failure = judge(testCase, await runCase(backend, testCase));
    if (failure) failures.push(failure);
  }
  return failures;
}
