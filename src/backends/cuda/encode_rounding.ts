/** Encodes the rounding of activations; kernels-cuda/rounding.h. */

import {
  CODE_ROUNDINGS,
  type DynamicScale,
  type QuantizedActivations,
  type StaticScale,
} from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import { KERNEL_DTYPES } from "../weight_unit.ts";
import type { CudaStep } from "./cuda_step.ts";
import { address, float, integer, integers, type Parameter, rows } from "./parameters.ts";

/** Rows of codes are padded with zeros to what tensor cores like best. */
const CODE_UNIT = 16;
/** How the kernels call int8 among the types of codes. */
const INT8 = -1;

/** Where the rounded rows lie in step scratch. */
interface RoundedRows {
  readonly scales: number;
  /** Float32 [rows], the codes that mean 0; 0 where all of them are 0 or nobody asks. */
  readonly zeros: number;
  /** Int8 or e4m3 [rows, codeStride], or 0. */
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
  launchRounding(step, x, mode, {
    scales: step.scratch(x.rows * 4),
    zeros: 0,
    codes: 0,
    values,
  });
  return { ...x, address: values, stride: x.columns };
}

/** Rows of codes with what they are worth. */
export interface CodeRows {
  readonly address: number;
  readonly rows: number;
  /** Bytes of a row, zeros behind its codes. */
  readonly stride: number;
  /** Float32 [rows]. */
  readonly scales: number;
  /** Float32 [rows], the codes that mean 0; 0 where all of them are 0. */
  readonly zeros: number;
}

/** x [m, k] rounded as `mode` says, as codes in step scratch. */
export function roundedCodes(
  step: CudaStep,
  x: MatrixView,
  mode: QuantizedActivations,
  outliers?: Outliers,
): CodeRows {
  const stride = codeStride(x.columns);
  const codes = step.scratch(x.rows * stride);
  const scales = step.scratch(x.rows * 4);
  const zeros = hasZeros(mode) ? step.scratch(x.rows * 4) : 0;
  launchRounding(step, x, mode, { scales, zeros, codes, values: 0 }, outliers);
  return { address: codes, rows: x.rows, stride, scales, zeros };
}

/** Columns that LLM.int8() keeps apart: where they are marked, and from which magnitude on. */
export interface Outliers {
  readonly marks: number;
  readonly threshold: number;
}

function hasZeros({ scale }: QuantizedActivations): boolean {
  return scale.kind === "static" ? scale.zero !== 0 : scale.mapping === "asymmetric";
}

/** x, marks, ranges, scales, zeros, values, codes, sizes, rule: a block a row. */
function launchRounding(
  step: CudaStep,
  x: MatrixView,
  mode: QuantizedActivations,
  rounded: RoundedRows,
  outliers: Outliers = { marks: 0, threshold: 0 },
): void {
  const isShared = mode.granularity === "tensor" && mode.scale.kind === "dynamic";
  const parameters = [
    ...rows([x.address, x.stride]),
    address(outliers.marks),
    address(isShared ? step.scratch(x.rows * 8) : 0),
    address(rounded.scales),
    address(rounded.zeros),
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

/** Bytes of a row of codes. */
export function codeStride(columns: number): number {
  return Math.ceil(columns / CODE_UNIT) * CODE_UNIT;
}
