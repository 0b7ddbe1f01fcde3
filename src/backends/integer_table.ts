/** Tables of codes as integers. */

import type { QuantizedActivations } from "../ops/activation_mode.ts";

/** A table whose entries are integers times one factor. */
export interface IntegerTable {
  readonly integers: readonly number[];
  readonly factor: number;
}

/** Entries of a table that kernels look up at once. */
export const MOST_ENTRIES = 16;
/** Largest magnitude of an entry in 16 bits. */
const MOST_INT16 = 2 ** 15 - 1;
/** Denominators in which tables are whole: integers, halves (e2m1, MXFP4), and bitsandbytes' FP4. */
const DENOMINATORS = [1, 2, 192];
/** Relative error of a float32. */
const ROUNDING = 2 ** -24;

/**
 * A table as integers times a factor: exactly (to the rounding of its float32 entries) where it is so, else, if
 * the mode allows `int16Tables`, rounded to 16 bits; null otherwise.
 */
export function integerTable(
  table: Float32Array,
  mode: QuantizedActivations,
): IntegerTable | null {
  if (table.length > MOST_ENTRIES) return null;
  const denominator = DENOMINATORS.find((d) => table.every((entry) => isWhole(entry, d)));
  if (denominator) return scaledTable(table, 1 / denominator);
  if (!mode.int16Tables) return null;
  const absmax = table.reduce((most, entry) => Math.max(most, Math.abs(entry)), 0);
  return Number.isFinite(absmax) ? scaledTable(table, absmax / MOST_INT16) : null;
}

/** The values that a table's codes stand for under a mode. */
export function tableValues(table: Float32Array, mode: QuantizedActivations): Float32Array {
  const isExact = integerTable(table, { ...mode, int16Tables: false }) !== null;
  const rounded = isExact ? null : integerTable(table, mode);
  return rounded ? Float32Array.from(rounded.integers, (i) => i * rounded.factor) : table;
}

function isWhole(entry: number, denominator: number): boolean {
  const product = entry * denominator;
  const whole = Math.round(product);
  return Math.abs(product - whole) <= Math.abs(whole) * ROUNDING && Math.abs(whole) <= MOST_INT16;
}

function scaledTable(table: Float32Array, factor: number): IntegerTable {
  return {
    factor: Math.fround(factor),
    integers: Array.from(table, (entry) => Math.round(entry / factor)),
  };
}
