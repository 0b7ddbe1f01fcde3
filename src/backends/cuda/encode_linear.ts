/** Encodes linear layers: few rows read the weight as stored; many have it made plain, slice by slice. */

import type { MatrixView } from "../operand_view.ts";
import { checkLinear } from "../step_checks.ts";
import type { CodedWeight } from "./coded_weight.ts";
import { codesTaken, type TakenCodes } from "./rows_taken.ts";
import type { CudaStep, EncodedWeight } from "./cuda_step.ts";
import { launchDequantize } from "./encode_elements.ts";
import {
  launchNarrowBias,
  launchProduct,
  productScratch,
  withNarrowBias,
} from "./encode_plain_product.ts";
import { launchFloat8Layer } from "./encode_float8_product.ts";
import { launchInt8Layer } from "./encode_int8_product.ts";
import { encodeLlmInt8 } from "./encode_llm_int8.ts";
import { roundedValues } from "./encode_rounding.ts";
import {
  type MatmulPrecision,
  OPERAND_BYTES,
  type OperandType,
  operandType,
} from "./matmul_precision.ts";
import { integers, rows } from "./parameters.ts";
import { launchNarrow, type NarrowType, type PlainRows, scratchRows } from "./plain_rows.ts";
import { BIAS, endFrom, endParameters, type ProductEnd, productEnd } from "./product_end.ts";
import { sliceRows } from "./slices.ts";
import { FEW_ROWS, tiles } from "./tiles.ts";

/** linear: x [m, k], weight [n, k], bias [n], gate and residual [1 | m, n] -> output [m, n]. */
export function encodeLinear(step: CudaStep): void {
  if (step.step.op !== "linear") return;
  const { activation, activations: mode } = step.step.attributes;
  const given = step.matrix(0);
  const weight = step.weight(1, mode.kind === "quantized" ? mode : undefined);
  const output = step.outputMatrix();
  checkLinear(given, weight, output);
  const end = productEnd(step, output, { bias: BIAS, gate: 3, residual: 4 }, activation);
  const taken = codesTaken(step.plan, step.step, step.products);
  if (taken) return launchCodes(step, given, weight as CodedWeight, end, taken);
  const x = mode.kind === "quantized" ? roundedValues(step, given, mode) : given;
  if (x.rows > FEW_ROWS) return launchSlices(step, x, weight, end, step.products.precision);
  // Few rows cost no more in float32: reading the weight takes the time.
  if (weight.plain?.type === "float32") return launchSlices(step, x, weight, end, "float32");
  step.launch("linear", tiles(x.rows, weight.rows), [
    ...rows([x.address, x.stride]),
    ...endParameters(end),
    ...weight.descriptor,
    ...integers(x.rows, weight.rows, x.columns, 0),
  ]);
}

/** Codes multiplied as they are. */
function launchCodes(
  step: CudaStep,
  x: MatrixView,
  weight: CodedWeight,
  end: ProductEnd,
  taken: TakenCodes,
): void {
  switch (taken.kind) {
    case "int8":
      return launchInt8Layer(step, x, weight, end, taken.mode);
    case "float8":
      return launchFloat8Layer(step, x, weight, end, taken.mode);
    case "llm_int8":
      return encodeLlmInt8(step, x, weight, end, taken.mode);
  }
}

/** The product over all rows of a plain weight, or over slices made plain: output columns, in turn. */
function launchSlices(
  step: CudaStep,
  x: MatrixView,
  weight: EncodedWeight,
  given: ProductEnd,
  precision: MatmulPrecision,
): void {
  const type = operandType(precision);
  const operand: PlainRows = type === "float32" ? { ...x, type } : narrowed(step, x, type);
  const end = withEndIn(step, given, type);
  const isPlain = weight.plain?.type === type;
  const count = isPlain ? weight.rows : sliceRows(weight, OPERAND_BYTES[type]);
  const scratch = productScratch(step, end, [x.rows, count]);
  const product = (plain: PlainRows, first: number): void =>
    launchProduct(step, operand, plain, endFrom(end, first, plain.rows), precision, scratch);
  const { rows, columns } = weight;
  if (isPlain) return product({ ...weight.plain!, rows, columns }, 0);
  const slice = step.scratch(count * columns * OPERAND_BYTES[type]);
  for (let first = 0; first < rows; first += count) {
    const left = Math.min(count, rows - first);
    launchDequantize(step, weight, [first, left], [slice, columns], type);
    product({ address: slice, stride: columns, rows: left, columns, type }, first);
  }
}

/** A layer's end whose bias is there in the type of its results, if these are of 16 bits. */
function withEndIn(step: CudaStep, given: ProductEnd, type: OperandType): ProductEnd {
  if (type === "float32" || !step.rounded.isWrittenNarrow(step.index)) return given;
  const end = withNarrowBias(step, given, type);
  if (given.output.type !== type) return given;
  launchNarrowBias(step, end, type);
  return end;
}

/** x rounded to 16 bits: made so, shared with others and there already or made now, or the step's own in its scratch. */
function narrowed(step: CudaStep, x: MatrixView, type: NarrowType): PlainRows {
  const made = step.rounded.rowsRead(step.index, 0);
  if (made) return made;
  const shared = step.rounded.sharedBy(step.index);
  const { rows: count, columns } = x;
  const operand: PlainRows = shared
    ? { address: step.rounded.addressOf(shared), rows: count, columns, stride: columns, type }
    : scratchRows(step, [count, columns], type);
  if (!shared?.isMade) launchNarrow(step, x, operand.address, type);
  if (shared) shared.isMade = true;
  return operand;
}
