/** Rounding of activations to codes: what every mode of the linear op but "float" begins with. */

import type { DynamicScale, QuantizedActivations } from "../../ops/activation_mode.ts";
import { fromFloat32, toFloat32 } from "../../tensor/convert.ts";
import type { StepContext } from "./step_context.ts";
import type { MatrixView } from "./strided_view.ts";

/** The least and the largest value of what shares a scale, zero included. */
export interface ValueRange {
  readonly least: number;
  readonly largest: number;
}

/** What turns values into codes and back. */
interface Scaling {
  readonly scale: number;
  readonly zero: number;
  /** x / scale, in float32. */
  quotient(x: number): number;
}

/** x [rows, columns] rounded as `mode` says and brought back to float32; scratch is `roundedScratch`. */
export function roundActivations(
  context: StepContext,
  x: MatrixView,
  mode: QuantizedActivations,
): MatrixView {
  const { rows, columns } = x;
  const values = context.scratchFloats(rows * columns);
  const row = (index: number) => values.subarray(index * columns, (index + 1) * columns);
  for (let index = 0; index < rows; index++) {
    const start = x.offset + index * x.rowStride;
    row(index).set(x.data.subarray(start, start + columns));
  }
  const shared = mode.granularity === "tensor" ? scalingOf(mode, rangeOf(values)) : null;
  for (let index = 0; index < rows; index++) {
    const scaling = shared ?? scalingOf(mode, rangeOf(row(index)));
    toCodes(row(index), mode, scaling);
    fromCodes(row(index), scaling);
  }
  return { data: values, offset: 0, rows, columns, rowStride: columns };
}

/** Scratch bytes `roundActivations` counts for x [m, k]. */
export function roundedScratch(m: number, k: number): number {
  return 4 * m * k;
}

/** The range of values, with zero; NaN where one is NaN. */
export function rangeOf(values: Float32Array): ValueRange {
  let least = 0, largest = 0;
  for (const value of values) {
    least = Math.min(least, value);
    largest = Math.max(largest, value);
  }
  return { least, largest };
}

/** The scaling of values of one range. */
export function scalingOf(mode: QuantizedActivations, range: ValueRange): Scaling {
  const { scale: rule } = mode;
  if (rule.kind === "static") {
    const inverse = Math.fround(rule.inverse);
    return multiplied(Math.fround(rule.scale), rule.zero, inverse);
  }
  const span = rule.mapping === "symmetric"
    ? Math.max(-range.least, range.largest)
    : Math.fround(range.largest - range.least);
  const scale = Math.max(Math.fround(span / Math.fround(rule.levels)), Math.fround(rule.least));
  const zero = rule.mapping === "symmetric" ? 0 : zeroOf(mode, range.least, scale);
  if (scale === 0) return multiplied(0, zero, 0);
  if (rule.rounding !== "quotient") return multiplied(scale, zero, inverseOf(rule, span, scale));
  return { scale, zero, quotient: (x) => Math.fround(x / scale) };
}

function multiplied(scale: number, zero: number, inverse: number): Scaling {
  return { scale, zero, quotient: (x) => Math.fround(x * inverse) };
}

function inverseOf({ rounding, levels }: DynamicScale, span: number, scale: number): number {
  return Math.fround(rounding === "ratio" ? Math.fround(levels) / span : 1 / scale);
}

function zeroOf({ lowest, highest }: QuantizedActivations, least: number, scale: number): number {
  const shift = scale === 0 ? 0 : roundHalfToEven(Math.fround(least / scale));
  return Math.min(Math.max(lowest - shift, lowest), highest);
}

/** Values to codes (for float8: the values of the codes), in place. */
export function toCodes(
  values: Float32Array,
  { dtype, lowest, highest }: QuantizedActivations,
  { zero, quotient }: Scaling,
): void {
  for (let index = 0; index < values.length; index++) {
    const exact = quotient(values[index]);
    const code = dtype === "int8" ? roundHalfToEven(exact) + zero : exact;
    values[index] = Math.min(Math.max(code, lowest), highest);
  }
  if (dtype !== "int8") values.set(toFloat32(dtype, fromFloat32(dtype, values)));
}

function fromCodes(codes: Float32Array, { scale, zero }: Scaling): void {
  for (let index = 0; index < codes.length; index++) codes[index] = (codes[index] - zero) * scale;
}

/** Adding and subtracting 1.5 * 2^52 rounds a double to an integer, ties to even. */
function roundHalfToEven(value: number): number {
  return value + 6755399441055744 - 6755399441055744;
}
