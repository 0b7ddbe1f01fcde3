/** Weights whose codes are multiplied as they are, int8 or float8: rows have one scale each, or share it. */

import type { QuantizedLayout } from "../../quantization/quantized_tensor.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import { weightMatrix } from "../step_operands.ts";
import { CODE_UNIT } from "./code_places.ts";
import type { EncodedWeight } from "./cuda_step.ts";

const INT8 = { least: -128, most: 127 } as const;
/** The most a code of x can lie from its zero, and a weight's from its own. */
const MOST_PRODUCT = 255 * 128;
const MOST_INT32 = 2 ** 31 - 1;
/** The values of all bytes. */
const E4M3 = toFloat32("float8_e4m3fn", Uint8Array.from({ length: 256 }, (_, code) => code));

/** A weight with codes. */
export type CodedWeight = EncodedWeight & { readonly coded: NonNullable<EncodedWeight["coded"]> };

/** What says how a weight may be multiplied. */
interface WeightRows {
  readonly rows: number;
  readonly columns: number;
  readonly coded: { readonly layout: QuantizedLayout } | null;
}
type Coded<Weight extends WeightRows> = Weight & { readonly coded: NonNullable<Weight["coded"]> };

/** Whether a weight's codes less their zero point are int8, and sums over a row exact in int32. */
export function isInt8Weight<Weight extends WeightRows>(weight: Weight): weight is Coded<Weight> {
  if (!hasRowScales(weight)) return false;
  const { value, bits } = weight.coded.layout;
  if (value.kind !== "integer" || !Number.isInteger(value.zeroPoint)) return false;
  const { zeroPoint } = value;
  return -zeroPoint >= INT8.least && 2 ** bits - 1 - zeroPoint <= INT8.most &&
    weight.columns * MOST_PRODUCT <= MOST_INT32;
}

/** Whether a weight's codes are brought around 0 when they are loaded, so that products read them where they lie. */
export function signsCodes(weight: PlanWeight): boolean {
  if (weight.format.kind === "dense") return false;
  const { layout } = weight.format;
  const { rows, columns } = weightMatrix(weight);
  return layout.bits === 8 && layout.value.kind === "integer" && layout.value.zeroPoint === 128 &&
    columns % CODE_UNIT === 0 && isInt8Weight({ rows, columns, coded: { layout } });
}

/** Whether a weight's codes are e4m3, in rows that float8 units read. */
export function isFloat8Weight<Weight extends WeightRows>(weight: Weight): weight is Coded<Weight> {
  if (!hasRowScales(weight)) return false;
  const { value } = weight.coded.layout;
  return value.kind === "table" && isE4m3(value.table) &&
    weight.columns % CODE_UNIT === 0 && weight.rows % CODE_UNIT === 0;
}

/** How many scales a weight of float32 scales has for a library to read: one, one for each row, or none it can. */
export function scalesOf(
  { rows, columns, coded: { layout } }: CodedWeight,
): "tensor" | "rows" | "none" {
  const { scale, groupSize } = layout;
  const isPlain = scale.kind === "float" && scale.dtype === "float32" &&
    (scale.multiplier ?? 1) === 1;
  if (!isPlain) return "none";
  if (groupSize >= rows * columns) return "tensor";
  return groupSize === columns ? "rows" : "none";
}

function hasRowScales<Weight extends WeightRows>(weight: Weight): weight is Coded<Weight> {
  const layout = weight.coded?.layout;
  return layout !== undefined && layout.offset === null && layout.groupSize % weight.columns === 0;
}

function isE4m3(table: Float32Array): boolean {
  return table.length === E4M3.length && table.every((value, code) => Object.is(value, E4M3[code]));
}
