/** Encoder of the rounding of activations that precedes a linear layer; kernels-wasm/src/activations.rs. */

import {
  CODE_DTYPES,
  CODE_ROUNDINGS,
  type DynamicScale,
  type QuantizedActivations,
  type StaticScale,
} from "../../ops/activation_mode.ts";
import type { StepEncoder } from "./encode.ts";
import type { MatrixView } from "../operand_view.ts";
import { float, TAPE_OPCODE, type Word } from "./tape_writer.ts";

/** Rows of codes are padded to this; kernels-wasm/src/activations.rs holds the same. */
const CODE_UNIT = 32;

/** Where the rounded rows of x [m, k] lie in step scratch. */
export interface RoundedRows {
  /** [m] float32: what a code is worth. */
  readonly scales: number;
  /** [m] float32: the code that means 0. */
  readonly zeros: number;
  /** [m, k to a multiple of 32] int8; 0 where none were asked for. */
  readonly codes: number;
  /** [m, k] float32: what the codes stand for; 0 where none were asked for. */
  readonly values: number;
}

/** What LLM.int8() adds: columns apart, found before. */
export interface OutlierColumns {
  readonly threshold: number;
  readonly marks: number;
}

/** Rounds x as `mode` says, into int8 codes, floats, or both. */
export function encodeRounding(
  encoder: StepEncoder,
  x: MatrixView,
  mode: QuantizedActivations,
  wanted: { codes?: boolean; values?: boolean; outliers?: OutlierColumns },
): RoundedRows {
  const { outliers } = wanted;
  const isShared = mode.granularity === "tensor" && mode.scale.kind === "dynamic";
  const ranges = isShared ? encoder.scratch(x.rows * 8) : 0;
  const codeBytes = x.rows * Math.ceil(x.columns / CODE_UNIT) * CODE_UNIT;
  const rounded = {
    scales: encoder.scratch(x.rows * 4),
    zeros: encoder.scratch(x.rows * 4),
    codes: wanted.codes ? encoder.scratch(codeBytes) : 0,
    values: wanted.values ? encoder.scratch(x.rows * x.columns * 4) : 0,
  };
  const parameters = [
    x.rows,
    x.columns,
    x.address,
    x.stride,
    CODE_DTYPES.indexOf(mode.dtype),
    ...scaleWords(mode.scale),
    float(mode.lowest),
    float(mode.highest),
    outliers ? 1 : 0,
    float(outliers?.threshold ?? 0),
    outliers?.marks ?? 0,
    ranges,
    rounded.scales,
    rounded.zeros,
    rounded.codes,
    rounded.values,
  ];
  if (isShared) encoder.emit(parameters, TAPE_OPCODE.findRanges);
  encoder.emit(parameters, TAPE_OPCODE.roundRows);
  return rounded;
}

/** dynamic, asymmetric, rounding, levels, least, scale, inverse, zero. */
function scaleWords(scale: DynamicScale | StaticScale): Word[] {
  if (scale.kind === "static") {
    return [0, 0, 0, 0, 0, ...[scale.scale, scale.inverse, scale.zero].map(float)];
  }
  const { mapping, rounding, levels, least } = scale;
  const isAsymmetric = mapping === "asymmetric" ? 1 : 0;
  const words = [1, isAsymmetric, CODE_ROUNDINGS.indexOf(rounding)];
  return [...words, float(levels), float(least), 0, 0, 0];
}
