/**
 * LLM.int8() (Dettmers et al., 2022), as bitsandbytes computes it: activations rounded to float16;
 * entries of magnitude >= threshold mark their column as an outlier and do not count for their row's
 * absmax; the other columns are rounded to int8 by rows and multiplied in integers; the outlier
 * columns are multiplied in float with the dequantized weight. Two steps differ on purpose: the
 * integer sums are exact (the library's CPU path sums them in float32), and 1 / 127^2 is that
 * number (the library has two approximations of it).
 */

import { HalftoneError } from "../../errors.ts";
import { unpackCodes } from "../../quantization/codes.ts";
import { decodeScales, valueTable } from "../../quantization/dequantize.ts";
import type { QuantizedTensor } from "../../quantization/quantized_tensor.ts";
import { LLM_INT8_ROWS } from "../../ops/activation_mode.ts";
import { fromFloat32, toFloat32 } from "../../tensor/convert.ts";
import { scalingOf, toCodes } from "./activations.ts";
import { dotProducts, type SumSink } from "./dot.ts";
import type { StepContext, StepWeight } from "./step_context.ts";
import type { MatrixView } from "./strided_view.ts";

/** x [m, k] times an int8 weight [n, k] with one scale per row; gives each finished sum to `sink`. */
export function runLlmInt8(
  context: StepContext,
  x: MatrixView,
  threshold: number,
  sink: SumSink,
): void {
  const { rows, columns } = x;
  const weight = int8Weight(context.weight(1));
  const count = weight.shape[0];
  const activations = roundToFloat16(x, context.scratchFloats(rows * columns));
  const outliers = outlierColumns(activations, columns, threshold);
  const codes = context.scratchFloats(rows * columns);
  const rowScales = context.scratchFloats(rows);
  quantizeRows(activations, columns, threshold, outliers, codes, rowScales);
  const weightCodes = integerCodes(weight, context.scratchFloats(count * columns));
  const weightScales = rowScalesOf(weight);
  const a = { data: codes, offset: 0, count: rows, stride: columns, step: 1 };
  const b = { data: weightCodes, offset: 0, count, stride: columns, step: 1 };
  // Products of int8 codes are integers below 2^14: their float64 sums are exact.
  dotProducts(a, b, columns, (row, column, sum) => {
    const scale = weightScales[column];
    let value = sum * rowScales[row] * scale.factor;
    for (const outlier of outliers) {
      const code = weightCodes[column * columns + outlier];
      value += activations[row * columns + outlier] * scale.dequantize(code);
    }
    sink(row, column, value);
  });
}

/** Scratch bytes `runLlmInt8` counts for x [m, k] and weight [n, k]. */
export function llmInt8Scratch(m: number, k: number, n: number): number {
  return 4 * (2 * m * k + m + n * k);
}

/** Columns in which any |x| >= threshold, in order; none when the threshold is 0. */
function outlierColumns(x: Float32Array, columns: number, threshold: number): number[] {
  if (threshold === 0) return [];
  const found = new Set<number>();
  x.forEach((value, index) => {
    if (Math.abs(value) >= threshold) found.add(index % columns);
  });
  return [...found].sort((a, b) => a - b);
}

function quantizeRows(
  x: Float32Array,
  columns: number,
  threshold: number,
  outliers: readonly number[],
  codes: Float32Array,
  rowScales: Float32Array,
): void {
  codes.set(x);
  for (let row = 0; row < rowScales.length; row++) {
    const start = row * columns, end = start + columns;
    const absmax = inlierAbsmax(x.subarray(start, end), threshold);
    const scaling = scalingOf(LLM_INT8_ROWS, { least: -absmax, largest: absmax });
    rowScales[row] = scaling.scale;
    toCodes(codes.subarray(start, end), LLM_INT8_ROWS, scaling);
    for (const column of outliers) codes[start + column] = 0;
  }
}

function inlierAbsmax(row: Float32Array, threshold: number): number {
  let absmax = 0;
  for (const value of row) {
    const magnitude = Math.abs(value);
    if (threshold > 0 && magnitude >= threshold) continue;
    absmax = Math.max(absmax, magnitude);
  }
  return absmax;
}

function roundToFloat16(x: MatrixView, into: Float32Array): Float32Array {
  for (let row = 0; row < x.rows; row++) {
    const start = x.offset + row * x.rowStride;
    const half = fromFloat32("float16", x.data.subarray(start, start + x.columns));
    into.set(toFloat32("float16", half), row * x.columns);
  }
  return into;
}

function int8Weight({ name, stored }: StepWeight): QuantizedTensor {
  if (stored.kind === "quantized") {
    const { layout, shape } = stored.tensor;
    const isRowWise = layout.groupSize === shape[1] && layout.offset === null;
    if (layout.bits === 8 && layout.value.kind === "integer" && isRowWise) return stored.tensor;
  }
  throw new HalftoneError("plan_invalid", "Cannot run linear with LLM.int8() activations", {
    tensor: name,
    expected: "8-bit integer codes with one scale per row",
  });
}

function integerCodes(weight: QuantizedTensor, into: Float32Array): Float32Array {
  const values = valueTable(weight.layout.value, 8);
  unpackCodes(weight.codes, 8, into.length).forEach((code, index) => into[index] = values[code]);
  return into;
}

interface RowScale {
  /** What an integer code is worth, unrounded. */
  readonly factor: number;
  /** The dequantized weight of a code, rounded as everywhere. */
  dequantize(code: number): number;
}

function rowScalesOf(weight: QuantizedTensor): RowScale[] {
  const { scale } = weight.layout;
  const multiplier = scale.kind === "float" ? scale.multiplier ?? 1 : 1;
  const scales = decodeScales(scale, weight.scale, weight.shape[0]);
  return Array.from(scales, (value) => ({
    factor: value * multiplier,
    dequantize: (code) => Math.fround(Math.fround(code * value) * Math.fround(multiplier)),
  }));
}
