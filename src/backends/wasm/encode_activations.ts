/** Encoder of the rounding of activations that precedes a linear layer; kernels-wasm/src/activations.rs. */

import {
  CODE_DTYPES,
  CODE_ROUNDINGS,
  type DynamicScale,
  type StaticScale,
} from "../../ops/activation_mode.ts";
import type { StepEncoder } from "./encode.ts";
import { stripWords } from "./integer_weight.ts";
import type { MatrixView } from "../operand_view.ts";
import type { RoundedRows, RowRounding, SharedRows } from "./rounded_rows.ts";
import { float, TAPE_OPCODE, type Word } from "./tape_writer.ts";

/** Rounds x, into codes as products with weights of a form take them, or floats, unless an earlier step did. */
export function encodeRounding(
  encoder: StepEncoder,
  x: MatrixView,
  shared: SharedRows,
): RoundedRows {
  const rounded = shared.places(encoder.placement.stepScratch);
  if (shared.isMade) return rounded;
  shared.isMade = true;
  const { mode } = shared.rounding;
  const isOverAll = mode.granularity === "tensor" && mode.scale.kind === "dynamic";
  const ranges = isOverAll ? encoder.scratch(x.rows * 8) : 0;
  const parameters = roundingWords(x, shared.rounding, rounded, ranges);
  if (isOverAll) encoder.emit(parameters, TAPE_OPCODE.findRanges);
  encoder.emit(parameters, TAPE_OPCODE.roundRows);
  return rounded;
}

/** The words of RoundRows in kernels-wasm/src/activations.rs. */
function roundingWords(
  x: MatrixView,
  { mode, form, threshold }: RowRounding,
  rounded: RoundedRows,
  ranges: number,
): Word[] {
  return [
    x.rows,
    x.columns,
    x.address,
    x.stride,
    CODE_DTYPES.indexOf(mode.dtype),
    ...scaleWords(mode.scale),
    float(mode.lowest),
    float(mode.highest),
    threshold === null ? 0 : 1,
    float(threshold ?? 0),
    rounded.marks,
    ranges,
    rounded.scales,
    rounded.zeros,
    rounded.values,
    form ? 1 : 0,
    ...rounded.strips,
    ...(form ? stripWords(form) : [0, 0, 0]),
  ];
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
