/** Encodes LLM.int8(): outlier columns are marked and listed, the rest is rounded and multiplied; kernels-cuda/llm_int8.h. */

import type { ActivationMode } from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import { checkInt8Weight } from "../step_checks.ts";
import type { CodePlaces } from "./code_places.ts";
import { isInt8Weight } from "./coded_weight.ts";
import type { CudaStep, EncodedWeight } from "./cuda_step.ts";
import { launchInt8Slices } from "./encode_int8_product.ts";
import { roundedCodes } from "./encode_rounding.ts";
import { BLOCK_THREADS } from "./kernel_names.ts";
import { address, float, integer, integers, type Parameter, rows } from "./parameters.ts";
import { endParameters, type ProductEnd } from "./product_end.ts";
import { FEW_ROWS, tiles } from "./tiles.ts";

/** x [m, k] times an int8 weight [n, k], as LLM.int8() does it. */
export function encodeLlmInt8(
  step: CudaStep,
  x: MatrixView,
  weight: EncodedWeight,
  end: ProductEnd,
  mode: ActivationMode & { readonly kind: "llm_int8" },
): void {
  checkInt8Weight(step.plan, step.operand(1));
  const parameters = ({ marks, list, scales, address: codes, stride }: CodePlaces): Parameter[] => [
    ...rows([x.address, x.stride]),
    ...endParameters(end),
    ...[marks, list, scales, codes].map(address),
    ...weight.descriptor,
    ...integers(x.rows, weight.rows, x.columns, stride),
    float(mode.threshold),
    integer(0),
  ];
  const codes = roundedCodes(step, x, mode, (places) => {
    const given = parameters(places);
    step.launch("llm_int8_clear", [Math.ceil(x.columns / BLOCK_THREADS), 1, 1], given);
    step.launch("llm_int8_mark", [x.rows, 1, 1], given);
    step.launch("llm_int8_list", [1, 1, 1], given);
  });
  if (x.rows <= FEW_ROWS || !isInt8Weight(weight)) {
    return step.launch("llm_int8_linear", tiles(x.rows, weight.rows), parameters(codes));
  }
  launchInt8Slices(step, codes, weight, end, (sums, slice) => {
    const { columns } = slice.end.output;
    step.launch("llm_int8_end", tiles(x.rows, columns), [
      ...rows([x.address, x.stride]),
      ...[sums.address, codes.scales, codes.list].map(address),
      ...endParameters(slice.end),
      ...weight.descriptor,
      ...integers(x.rows, columns, sums.stride, slice.first),
    ]);
  });
}
