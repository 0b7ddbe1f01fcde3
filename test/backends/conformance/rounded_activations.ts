/** What rounding of activations must give, by the definition in src/ops/activation_mode.ts alone. */

import {
  type CodeDType,
  LLM_INT8_ROWS,
  type QuantizedActivations,
} from "../../../src/ops/activation_mode.ts";
import type { Matrix } from "./evaluator.ts";

/** What the values that share a scale have in common. */
interface Shared {
  readonly scale: number;
  readonly zero: number;
  /** The float32 that is rounded to a code. */
  exact(value: number): number;
}

/** x [rows, columns] rounded to codes and back, element by element. */
export function roundedActivations(x: Matrix, mode: QuantizedActivations): Matrix {
  const { rows, columns } = x;
  const values = Array.from(x.data);
  const perTensor = mode.granularity === "tensor" ? sharedBy(values, mode) : null;
  const data = Array.from({ length: rows }, (_, row) => {
    const own = values.slice(row * columns, (row + 1) * columns);
    const shared = perTensor ?? sharedBy(own, mode);
    return own.map((value) => (code(value, shared, mode) - shared.zero) * shared.scale);
  }).flat();
  return { rows, columns, data };
}

function sharedBy(values: readonly number[], mode: QuantizedActivations): Shared {
  const rule = mode.scale;
  if (rule.kind === "static") {
    const inverse = Math.fround(rule.inverse);
    const exact = (value: number) => Math.fround(value * inverse);
    return { scale: Math.fround(rule.scale), zero: rule.zero, exact };
  }
  const low = values.reduce((least, value) => Math.min(least, value), 0);
  const high = values.reduce((largest, value) => Math.max(largest, value), 0);
  const span = rule.mapping === "symmetric" ? Math.max(-low, high) : Math.fround(high - low);
  const scale = Math.max(Math.fround(span / rule.levels), Math.fround(rule.least));
  if (scale === 0) return { scale, zero: mode.lowest < 0 ? 0 : mode.lowest, exact: () => 0 };
  const zero = rule.mapping === "symmetric"
    ? 0
    : clamp(mode.lowest - roundToEven(Math.fround(low / scale)), mode);
  const factor = Math.fround(rule.rounding === "ratio" ? rule.levels / span : 1 / scale);
  const exact = (value: number) =>
    Math.fround(rule.rounding === "quotient" ? value / scale : value * factor);
  return { scale, zero, exact };
}

function code(value: number, { exact, zero }: Shared, mode: QuantizedActivations): number {
  if (mode.dtype === "int8") return clamp(roundToEven(exact(value)) + zero, mode);
  return nearestFloat8(clamp(exact(value), mode), mode.dtype);
}

function clamp(value: number, { lowest, highest }: QuantizedActivations): number {
  return Math.min(Math.max(value, lowest), highest);
}

/** The nearest float8, ties to the even mantissa, of a value within its range. */
function nearestFloat8(value: number, dtype: Exclude<CodeDType, "int8">): number {
  const { mantissa, least } = dtype === "float8_e4m3fn"
    ? { mantissa: 3, least: -6 }
    : { mantissa: 2, least: -14 };
  const magnitude = Math.abs(value);
  const exponent = Math.max(least, Math.floor(Math.log2(magnitude || 2 ** least)));
  const step = 2 ** (exponent - mantissa);
  return Math.sign(value) * roundToEven(magnitude / step) * step;
}

/** The nearest integer, ties to even. */
export function roundToEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** q and k as attention in int8 rounds them, k less its mean over all keys, each head by itself. */
export function roundedHeads(
  [q, k]: readonly [Matrix, Matrix],
  heads: number,
): readonly [Matrix, Matrix] {
  const mean = Array.from({ length: k.columns }, (_, column) => {
    let sum = 0;
    for (let row = 0; row < k.rows; row++) sum += k.data[row * k.columns + column];
    return Math.fround(sum / k.rows);
  });
  const data = Array.from(k.data, (x, i) => Math.fround(x - mean[i % k.columns]));
  return [byHead(q, heads), byHead({ ...k, data }, heads)];
}

/** A matrix whose rows are rounded head by head. */
function byHead({ rows, columns, data }: Matrix, heads: number): Matrix {
  const d = columns / heads;
  // A row of each head after the other is what the matrix holds already.
  const { data: rounded } = roundedActivations(
    { rows: rows * heads, columns: d, data },
    LLM_INT8_ROWS,
  );
  return { rows, columns, data: rounded };
}
