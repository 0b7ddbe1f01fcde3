/** The whole suite: families of cases, and what a backend is excused from, with the reason. */

import type { Backend } from "../../../src/backends/backend.ts";
import type { ConformanceCase } from "./cases.ts";
import { quantizedActivationCases } from "./activation_cases.ts";
import { attentionCases } from "./attention_cases.ts";
import { attentionInt8Cases } from "./attention_int8_cases.ts";
import { copyCases } from "./copy_cases.ts";
import { binaryCases, reduceCases, unaryCases } from "./elementwise_cases.ts";
import { integerProductCases } from "./integer_cases.ts";
import { headNormRopeCases, normCases } from "./norm_cases.ts";
import { conv2dCases, matmulCases } from "./product_cases.ts";
import {
  gatherCases,
  largeLinearCases,
  linearCases,
  llmInt8Cases,
  unpackCases,
} from "./weight_cases.ts";

/** Families of cases by the name a test shows; made once, as their expectations are. */
export const FAMILIES: Readonly<Record<string, () => ConformanceCase[]>> = {
  "copies of any view": once(copyCases),
  "unary ops": once(unaryCases),
  "binary ops": once(binaryCases),
  "reductions": once(reduceCases),
  "gathers from every format": once(gatherCases),
  "matrix products": once(matmulCases),
  "dequantization of every format": once(unpackCases),
  "convolutions": once(conv2dCases),
  "linear layers over every format": once(linearCases),
  "large linear layers": once(largeLinearCases),
  "LLM.int8() linear layers": once(llmInt8Cases),
  "linear layers over rounded activations": once(quantizedActivationCases),
  "products of integer codes": once(integerProductCases),
  "norms": once(normCases),
  "attention": once(attentionCases),
  "attention in int8": once(attentionInt8Cases),
  "head norms with rotary embedding": once(headNormRopeCases),
};

/** One kind of backend that the suite runs on. */
export interface Subject {
  /** As test names show it, such as "wasm, strict, 2 threads". */
  readonly name: string;
  create(): Promise<Backend>;
  /** Why a case cannot be asked of this backend, or null. */
  skip?(testCase: ConformanceCase): string | null;
}

/** The cases, made at the first call; each remembers its expectation. */
function once(make: () => ConformanceCase[]): () => ConformanceCase[] {
  let cases: ConformanceCase[] | undefined;
  return () => cases ??= make().map(rememberExpectation);
}

function rememberExpectation(testCase: ConformanceCase): ConformanceCase {
  let expected: ArrayLike<number> | undefined;
  return { ...testCase, expected: () => expected ??= testCase.expected() };
}
