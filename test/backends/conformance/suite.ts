/** The whole suite: families of cases, and what a backend is excused from, with the reason. */

import type { Backend } from "../../../src/backends/backend.ts";
import type { ConformanceCase } from "./cases.ts";
import { attentionCases } from "./attention_cases.ts";
import { copyCases } from "./copy_cases.ts";
import { binaryCases, reduceCases, unaryCases } from "./elementwise_cases.ts";
import { headNormRopeCases, normCases } from "./norm_cases.ts";
import { conv2dCases, matmulCases } from "./product_cases.ts";
import {
  gatherCases,
  largeLinearCases,
  linearCases,
  llmInt8Cases,
  unpackCases,
} from "./weight_cases.ts";

/** Families of cases by the name a test shows. */
export const FAMILIES: Readonly<Record<string, () => ConformanceCase[]>> = {
  "copies of any view": copyCases,
  "unary ops": unaryCases,
  "binary ops": binaryCases,
  "reductions": reduceCases,
  "gathers from every format": gatherCases,
  "matrix products": matmulCases,
  "dequantization of every format": unpackCases,
  "convolutions": conv2dCases,
  "linear layers over every format": linearCases,
  "large linear layers": largeLinearCases,
  "LLM.int8() linear layers": llmInt8Cases,
  "norms": normCases,
  "attention": attentionCases,
  "head norms with rotary embedding": headNormRopeCases,
};

/** One kind of backend that the suite runs on. */
export interface Subject {
  /** As test names show it, such as "wasm, strict, 2 threads". */
  readonly name: string;
  create(): Promise<Backend>;
  /** Why a case cannot be asked of this backend, or null. */
  skip?(testCase: ConformanceCase): string | null;
}
