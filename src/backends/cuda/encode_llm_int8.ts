/** Encodes LLM.int8(): outlier columns are marked and listed, the rest is rounded and multiplied; kernels-cuda/llm_int8.h. */

import { LLM_INT8_ROWS } from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import { checkInt8Weight } from "../step_checks.ts";
import { isInt8Weight } from "./coded_weight.ts";
import type { CudaStep, EncodedWeight } from "./cuda_step.ts";
import { launchInt8Slices } from "./encode_int8_product.ts";
import { type CodeRows, roundedCodes } from "./encode_rounding.ts";
import { BLOCK_THREADS } from "./kernel_names.ts";
import { address, float, integer, integers, type Parameter, rows } from "./parameters.ts";
import { endParameters, type ProductEnd } from "./product_end.ts";
import { tiles } from "./tiles.ts";

/** Rows of x up to which the weight is multiplied as it is stored. */
export interface LlmInt8Options {
  readonly threshold: number;
  readonly fewRows: number;
}

/** x [m, k] times an int8 weight [n, k], as LLM.int8() does it. */
export function encodeLlmInt8(
  step: CudaStep,
  x: MatrixView,
  weight: EncodedWeight,
  end: ProductEnd,
  { threshold, fewRows }: LlmInt8Options,
): void {
  checkInt8Weight(step.plan, step.operand(1));
  const marks = step.scratch(x.columns * 4);
  const list = step.scratch((x.columns + 1) * 4);
  const parameters = (codes?: CodeRows): Parameter[] => [
    ...rows([x.address, x.stride]),
    ...endParameters(end),
    ...[marks, list, codes?.scales ?? 0, codes?.address ?? 0].map(address),
    ...weight.descriptor,
    ...integers(x.rows, weight.rows, x.columns, codes?.stride ?? 0),
    float(threshold),
    integer(0),
  ];
  step.launch("llm_int8_clear", [Math.ceil(x.columns / BLOCK_THREADS), 1, 1], parameters());
  step.launch("llm_int8_mark", [x.rows, 1, 1], parameters());
  step.launch("llm_int8_list", [1, 1, 1], parameters());
  const codes = roundedCodes(step, x, LLM_INT8_ROWS, { marks, threshold });
  if (x.rows <= fewRows || !isInt8Weight(weight)) {
    return step.launch("llm_int8_linear", tiles(x.rows, weight.rows), parameters(codes));
  }
  launchInt8Slices(step, codes, weight, end, (sums, slice) => {
    const { columns } = slice.end.output;
    step.launch("llm_int8_end", tiles(x.rows, columns), [
      ...rows([x.address, x.stride]),
      ...[sums.address, codes.scales, list].map(address),
      ...endParameters(slice.end),
      ...weight.descriptor,
      ...integers(x.rows, columns, sums.stride, slice.first),
    ]);
  });
}
