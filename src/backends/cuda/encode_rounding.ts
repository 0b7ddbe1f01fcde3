/** Encoders of the rounding of activations, and of LLM.int8(); kernels-cuda/rounding.h and llm_int8.h. */

import {
  CODE_ROUNDINGS,
  type DynamicScale,
  LLM_INT8_ROWS,
  type QuantizedActivations,
  type StaticScale,
} from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import { checkInt8Weight } from "../step_checks.ts";
import { KERNEL_DTYPES } from "../weight_unit.ts";
import type { CudaStep, EncodedWeight } from "./cuda_step.ts";
import { BLOCK_THREADS } from "./kernel_names.ts";
import { address, float, integer, integers, type Parameter, rows } from "./parameters.ts";
import { tiles } from "./tiles.ts";

/** Rows of int8 codes are padded to a word of four. */
const CODE_UNIT = 4;
/** How the kernels call int8 among the types of codes. */
const INT8 = -1;

/** Where the rounded rows lie in step scratch. */
interface RoundedRows {
  readonly scales: number;
  /** int8 [rows, codeStride], or 0. */
  readonly codes: number;
  /** float32 [rows, columns], or 0. */
  readonly values: number;
}

/** x [m, k] rounded as `mode` says and brought back to float32, in step scratch. */
export function roundedValues(
  step: CudaStep,
  x: MatrixView,
  mode: QuantizedActivations,
): MatrixView {
  const values = step.scratch(x.rows * x.columns * 4);
  launchRounding(step, x, mode, { scales: step.scratch(x.rows * 4), codes: 0, values });
  return { ...x, address: values, stride: x.columns };
}

/** x, marks, ranges, scales, values, codes, sizes, rule: a block a row. */
function launchRounding(
  step: CudaStep,
  x: MatrixView,
  mode: QuantizedActivations,
  rounded: RoundedRows,
  outliers: { marks: number; threshold: number } = { marks: 0, threshold: 0 },
): void {
  const isShared = mode.granularity === "tensor" && mode.scale.kind === "dynamic";
  const parameters = [
    ...rows([x.address, x.stride]),
    address(outliers.marks),
    address(isShared ? step.scratch(x.rows * 8) : 0),
    address(rounded.scales),
    address(rounded.values),
    address(rounded.codes),
    ...integers(x.rows, x.columns, codeStride(x.columns)),
    integer(mode.dtype === "int8" ? INT8 : KERNEL_DTYPES.indexOf(mode.dtype)),
    ...scaleWords(mode.scale),
    ...[mode.lowest, mode.highest, outliers.threshold].map(float),
  ];
  if (isShared) step.launch("round_ranges", [x.rows, 1, 1], parameters);
  step.launch("round_rows", [x.rows, 1, 1], parameters);
}

/** static, asymmetric, rounding, levels, least, scale, inverse, zero. */
function scaleWords(scale: DynamicScale | StaticScale): Parameter[] {
  if (scale.kind === "static") {
    const { scale: step, inverse, zero } = scale;
    return [...integers(1, 0, 0), ...[1, 0, step, inverse, zero].map(float)];
  }
  const { mapping, rounding, levels, least } = scale;
  const kinds = integers(0, mapping === "asymmetric" ? 1 : 0, CODE_ROUNDINGS.indexOf(rounding));
  return [...kinds, ...[levels, least, 0, 0, 0].map(float)];
}

/** LLM.int8(): mark outlier columns, list them, round the rest, multiply. */
export function encodeLlmInt8(
  step: CudaStep,
  x: MatrixView,
  weight: EncodedWeight,
  end: readonly Parameter[],
  threshold: number,
): void {
  checkInt8Weight(step.plan, step.operand(1));
  const marks = step.scratch(x.columns * 4);
  const list = step.scratch((x.columns + 1) * 4);
  const scales = step.scratch(x.rows * 4);
  const codes = step.scratch(x.rows * codeStride(x.columns));
  const parameters = [
    ...rows([x.address, x.stride]),
    ...end,
    ...[marks, list, scales, codes].map(address),
    ...weight.descriptor,
    ...integers(x.rows, weight.rows, x.columns, codeStride(x.columns)),
    float(threshold),
    integer(0),
  ];
  step.launch("llm_int8_clear", [Math.ceil(x.columns / BLOCK_THREADS), 1, 1], parameters);
  step.launch("llm_int8_mark", [x.rows, 1, 1], parameters);
  step.launch("llm_int8_list", [1, 1, 1], parameters);
  launchRounding(step, x, LLM_INT8_ROWS, { scales, codes, values: 0 }, { marks, threshold });
  step.launch("llm_int8_linear", tiles(x.rows, weight.rows), parameters);
}

function codeStride(columns: number): number {
  return Math.ceil(columns / CODE_UNIT) * CODE_UNIT;
}
