/** Checks of steps that every native backend makes before it encodes them; each throws `plan_invalid`. */

import type { OpAttributes } from "../ops/op_table.ts";
import type { Plan, PlanOperand, PlanWeight } from "../plan/plan.ts";
import { type AddressedView, invalid } from "./operand_view.ts";
import type { StepOperands } from "./step_operands.ts";

interface MatrixSize {
  readonly rows: number;
  readonly columns: number;
}

/** x [m, k], weight [n, k], output [m, n]. */
export function checkLinear(x: MatrixSize, weight: MatrixSize, output: MatrixSize): void {
  const fits = weight.columns === x.columns && output.rows === x.rows &&
    output.columns === weight.rows;
  if (!fits) throw invalid("linear shapes differ", { x, weight, output });
}

/** A weight for LLM.int8(). */
export function checkInt8Weight(plan: Plan, operand: PlanOperand): void {
  const weight: PlanWeight | undefined = operand.kind === "weight"
    ? plan.weights[operand.weight]
    : undefined;
  if (weight?.format.kind === "quantized") {
    const { bits, value, groupSize, offset } = weight.format.layout;
    const isRowWise = groupSize === weight.shape[1] && offset === null;
    if (bits === 8 && value.kind === "integer" && isRowWise) return;
  }
  throw invalid("LLM.int8() needs 8-bit integer codes with one scale per row", weight?.name);
}

/** x [height, width, channels], weight [out, kernel * kernel * channels], output [oh, ow, out]. */
export function checkConvolution(
  { kernel, stride, padding, upsample }: OpAttributes["conv2d"],
  x: AddressedView,
  weight: MatrixSize,
  output: AddressedView,
): void {
  const [height, width, channels] = x.shape;
  const [outHeight, outWidth, outChannels] = output.shape;
  const [top, left, bottom, right] = padding;
  const expected = [height * upsample + top + bottom, width * upsample + left + right]
    .map((size) => Math.floor((size - kernel) / stride) + 1);
  const isValid = x.shape.length === 3 && output.shape.length === 3 &&
    weight.columns === kernel * kernel * channels && weight.rows === outChannels &&
    outHeight === expected[0] && outWidth === expected[1] && (channels === 1 || x.strides[2] === 1);
  if (!isValid) throw invalid("conv2d shapes differ", { x, weight, output });
}

/** Address, head stride and query stride of attention's bias; zeros when it is absent. */
export function attentionBias(
  step: StepOperands,
  expected: readonly [heads: number, queries: number, keys: number],
): [address: number, headStride: number, queryStride: number] {
  if (!step.has(3)) return [0, 0, 0];
  const { address, shape, strides } = step.view(3);
  const fits = shape.length === 3 && shape[2] === expected[2] && strides[2] === 1 &&
    [0, 1].every((axis) => shape[axis] === expected[axis] || shape[axis] === 1);
  if (!fits) throw invalid("attention bias", { found: shape, expected });
  return [address, shape[0] === 1 ? 0 : strides[0], shape[1] === 1 ? 0 : strides[1]];
}
