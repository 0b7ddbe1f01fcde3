/**
 * How a quantized weight is seen as integers, so that int8 activations meet it in integer arithmetic:
 *
 *     w = (integer + shift) * (scale * factor) + offset,   integer = code - center, or table[code]
 *
 * Narrow products (kernels-wasm/src/integer_kernel.rs) add in 16 bits: half the k of a run end in one sum. So
 * a run may be as long as the integers are small, and the center makes them small.
 */

import type { QuantizedActivations } from "../../ops/activation_mode.ts";
import type { CodeValue, QuantizedLayout } from "../../quantization/quantized_tensor.ts";
import { type IntegerTable, integerTable, MOST_ENTRIES } from "../integer_table.ts";
import { float, type Word } from "./tape_writer.ts";

/** A weight as integers. */
export interface IntegerForm {
  /** Bytes of 0 to 127, sums of 16 bits; else int16 and sums of 32 bits. */
  readonly isNarrow: boolean;
  /** Consecutive k of a row with one scale whose sums fit. */
  readonly run: number;
  /** Subtracted from an integer code; added to a table's integer to make it a byte. */
  readonly center: number;
  /** Whether anything is added to integer * scale. */
  readonly hasOffset: boolean;
  readonly shift: number;
  readonly factor: number;
  readonly table: readonly number[] | null;
  /** Whether sums stay integers to the end: a row has one scale and no offset. */
  readonly isExact: boolean;
}

/** Runs of narrow products, longest first: the kernels take no others. */
const NARROW_RUNS = [64, 32, 16];
/** The longest run of wide products, a block of k in the kernels. */
const WIDE_RUN = 256;
const MOST_INT16 = 2 ** 15 - 1;
const MOST_INT32 = 2 ** 31 - 1;
const MOST_BYTE = 127;
/** The most a code of x can lie from its zero. */
const MOST_DIFFERENCE = 255;

/** The integers that codes stand for, before the choice of a center. */
interface Integers {
  readonly least: number;
  readonly most: number;
  readonly zeroPoint: number;
  readonly table: IntegerTable | null;
}

/** The form of a weight [rows, columns]; null when its products must be float. */
export function integerForm(
  layout: QuantizedLayout,
  columns: number,
  mode: QuantizedActivations,
): IntegerForm | null {
  const integers = mode.dtype === "int8" ? integersOf(layout, mode) : null;
  const scaled = scaledRun(layout.groupSize, columns);
  if (!integers || scaled === 0) return null;
  return narrowForm(integers, layout, scaled, mode) ?? wideForm(integers, layout, scaled, columns);
}

/** Consecutive k of a row that share a scale; 0 when that differs from row to row, or is no multiple of 16. */
function scaledRun(groupSize: number, columns: number): number {
  if (groupSize % columns === 0) return Infinity;
  return columns % groupSize === 0 && groupSize % 16 === 0 ? groupSize : 0;
}

function integersOf({ value, bits }: QuantizedLayout, mode: QuantizedActivations): Integers | null {
  if (value.kind === "integer") return integersOfCodes(value, bits);
  const table = integerTable(value.table, mode);
  if (!table) return null;
  const { integers } = table;
  return { least: Math.min(...integers), most: Math.max(...integers), zeroPoint: 0, table };
}

function integersOfCodes(
  { zeroPoint }: Extract<CodeValue, { kind: "integer" }>,
  bits: number,
): Integers | null {
  const most = 2 ** bits - 1;
  // A zero point far away would make the shift's part of a sum outgrow the sum.
  if (!Number.isInteger(zeroPoint) || zeroPoint < 0 || zeroPoint > most) return null;
  return { least: 0, most, zeroPoint, table: null };
}

function narrowForm(
  integers: Integers,
  layout: QuantizedLayout,
  scaled: number,
  mode: QuantizedActivations,
): IntegerForm | null {
  for (const center of centers(integers, layout)) {
    const run = NARROW_RUNS.find((run) =>
      (scaled === Infinity || scaled % run === 0) && fitsNarrow(integers, center, run, mode)
    );
    if (run) return { ...formOf(integers, layout, center), isNarrow: true, run, isExact: false };
  }
  return null;
}

/** Centers to try, the cheapest first. */
function centers(
  { least, most, zeroPoint, table }: Integers,
  { offset }: QuantizedLayout,
): number[] {
  if (table) return [-least];
  const middle = [(most + 1) / 2, (most - 1) / 2];
  return offset ? middle : [zeroPoint, ...middle];
}

/** Whether the 16-bit sums of a run end within their range, and every weight is a byte of the right size. */
function fitsNarrow(
  { least, most, table }: Integers,
  center: number,
  run: number,
  { lowest, highest }: QuantizedActivations,
): boolean {
  const [low, high] = table ? [least, most] : [least - center, most - center];
  const products = [low, high].flatMap((w) => [w * lowest, w * highest]);
  const isByte = table ? most - least <= MOST_BYTE : most <= MOST_BYTE;
  return isByte && Math.max(...products) * run / 2 <= MOST_INT16 &&
    Math.min(...products) * run / 2 >= -MOST_INT16 - 1;
}

function wideForm(
  integers: Integers,
  layout: QuantizedLayout,
  scaled: number,
  columns: number,
): IntegerForm | null {
  const { least, most, zeroPoint, table } = integers;
  const largest = Math.max(Math.abs(least - zeroPoint), Math.abs(most - zeroPoint));
  const form = formOf(integers, layout, zeroPoint);
  const isExact = scaled === Infinity && !form.hasOffset && table === null &&
    largest * MOST_DIFFERENCE * columns <= MOST_INT32;
  let run = WIDE_RUN;
  while (scaled !== Infinity && scaled % run !== 0) run /= 2;
  return largest * MOST_DIFFERENCE * run > MOST_INT32
    ? null
    : { ...form, isNarrow: false, run, isExact };
}

function formOf({ zeroPoint, table }: Integers, { offset }: QuantizedLayout, center: number) {
  const shift = table ? 0 : center - zeroPoint;
  return {
    center,
    shift,
    hasOffset: offset !== null || shift !== 0,
    factor: table?.factor ?? 1,
    table: table?.integers ?? null,
  };
}

/** What of a form decides how codes of x lie; StripForm in kernels-wasm/src/strips.rs. */
export function stripWords({ isNarrow, run, center }: IntegerForm): Word[] {
  return [isNarrow ? 1 : 0, run, center];
}

/** A form as the words of IntegerForm in kernels-wasm/src/integer_gemm.rs. */
export function formWords(form: IntegerForm): Word[] {
  const table = new Int16Array(MOST_ENTRIES);
  table.set(form.table ?? []);
  return [
    ...stripWords(form),
    form.hasOffset ? 1 : 0,
    float(form.shift),
    float(form.factor),
    form.table ? 1 : 0,
    ...new Int32Array(table.buffer),
    form.isExact ? 1 : 0,
  ];
}
