/** Encoder of the rounding of activations that precedes a linear layer; kernels-wasm/src/activations.rs. */

import {
  CODE_DTYPES,
  CODE_ROUNDINGS,
  type DynamicScale,
  type QuantizedActivations,
  type StaticScale,
} from "../../ops/activation_mode.ts";
import type { StepEncoder } from "./encode.ts";
import { type IntegerForm, stripWords } from "./integer_weight.ts";
import type { MatrixView } from "../operand_view.ts";
import { float, TAPE_OPCODE, type Word } from "./tape_writer.ts";

/** Rows of a strip; kernels-wasm/src/integer_kernel.rs holds the same. */
const STRIP_ROWS = 4;
/** Bytes of a code: the plain build takes int16 where the relaxed one takes bytes. */
const MOST_CODE_BYTES = 2;
/** The longest run of narrow products; k of a row is padded to it. */
const PADDED_RUN = 64;
/** The fewest k of a block; kernels-wasm/src/strips.rs, BLOCK_BYTES. */
const LEAST_BLOCK = 256;

/** Where the rounded rows of x [m, k] lie in step scratch. */
export interface RoundedRows {
  /** [m] float32: what a code is worth. */
  readonly scales: number;
  /** [m] float32: the code that means 0. */
  readonly zeros: number;
  /** [m, k] float32: what the codes stand for; 0 where none were asked for. */
  readonly values: number;
  /** The words of Strips in kernels-wasm/src/strips.rs. */
  readonly strips: readonly number[];
}

/** What LLM.int8() adds: columns apart, found before. */
export interface OutlierColumns {
  readonly threshold: number;
  readonly marks: number;
}

/** Rounds x as `mode` says, into codes as products with weights of a form take them, floats, or both. */
export function encodeRounding(
  encoder: StepEncoder,
  x: MatrixView,
  mode: QuantizedActivations,
  wanted: { form?: IntegerForm; values?: boolean; outliers?: OutlierColumns },
): RoundedRows {
  const { form, outliers } = wanted;
  const isShared = mode.granularity === "tensor" && mode.scale.kind === "dynamic";
  const ranges = isShared ? encoder.scratch(x.rows * 8) : 0;
  const rows = roundUp(x.rows, STRIP_ROWS);
  const rounded = {
    scales: encoder.scratch(rows * 4),
    zeros: encoder.scratch(rows * 4),
    values: wanted.values ? encoder.scratch(x.rows * x.columns * 4) : 0,
    strips: form ? placeStrips(encoder, rows, x.columns, form) : [0, 0, 0],
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
    rounded.values,
    form ? 1 : 0,
    ...rounded.strips,
    ...(form ? stripWords(form) : [0, 0, 0]),
  ];
  if (isShared) encoder.emit(parameters, TAPE_OPCODE.findRanges);
  encoder.emit(parameters, TAPE_OPCODE.roundRows);
  return rounded;
}

/** Room for codes, what narrow sums begin at, and sums of runs, where a form has them. */
function placeStrips(
  encoder: StepEncoder,
  rows: number,
  k: number,
  { isNarrow, hasOffset, run }: IntegerForm,
): number[] {
  const codes = encoder.scratch(rows * roundUp(k, PADDED_RUN) * MOST_CODE_BYTES);
  const sumBytes = rows * Math.ceil(k / Math.min(run, LEAST_BLOCK)) * 4;
  const starts = isNarrow ? encoder.scratch(sumBytes) : 0;
  return [codes, starts, hasOffset ? encoder.scratch(sumBytes) : 0];
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
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
