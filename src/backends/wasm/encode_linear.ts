/** Encoders of linear and conv2d, which end alike: bias, activation, gate, residual. */

import { type Activation, UNARY_KINDS } from "../../ops/op_table.ts";
import { LLM_INT8_ROWS, type QuantizedActivations } from "../../ops/activation_mode.ts";
import type { PlanWeight } from "../../plan/plan.ts";
import type { StepEncoder } from "./encode.ts";
import { encodeRounding } from "./encode_activations.ts";
import { invalid, type MatrixView } from "../operand_view.ts";
import { float, TAPE_OPCODE, type Word } from "./tape_writer.ts";

/** output, bias, gate, residual, activation. */
function epilogue(
  encoder: StepEncoder,
  output: MatrixView,
  operands: { bias: number; gate?: number; residual: number },
  activation: Activation,
): Word[] {
  const { rows, columns } = output;
  return [
    output.address,
    output.stride,
    encoder.vector(operands.bias, columns),
    ...(operands.gate === undefined ? [0, 0] : encoder.rows(operands.gate, rows, columns)),
    ...encoder.rows(operands.residual, rows, columns),
    UNARY_KINDS.indexOf(activation),
  ];
}

/** linear: rounding of x where the mode asks for it, then m, n, k, x, weight, epilogue. */
export function encodeLinear(encoder: StepEncoder): void {
  if (encoder.step.op !== "linear") return;
  const mode = encoder.step.attributes.activations;
  const x = encoder.matrix(0);
  if (mode.kind === "llm_int8") return encodeLlmInt8(encoder, x, mode.threshold);
  encoder.emit(linearWords(encoder, mode.kind === "quantized" ? rounded(encoder, x, mode) : x));
}

/** x as floats after rounding, in step scratch. */
function rounded(encoder: StepEncoder, x: MatrixView, mode: QuantizedActivations): MatrixView {
  const { values } = encodeRounding(encoder, x, mode, { values: true });
  return { ...x, address: values, stride: x.columns };
}

/** m, n, k, x, weight, epilogue. */
function linearWords(encoder: StepEncoder, x: MatrixView): Word[] {
  if (encoder.step.op !== "linear") return [];
  const weight = encoder.weight(1);
  const output = encoder.outputMatrix();
  if (weight.columns !== x.columns || output.rows !== x.rows || output.columns !== weight.rows) {
    throw invalid("linear shapes differ", { x, weight, output });
  }
  return [
    x.rows,
    weight.rows,
    x.columns,
    x.address,
    x.stride,
    weight.address,
    ...epilogue(
      encoder,
      output,
      { bias: 2, gate: 3, residual: 4 },
      encoder.step.attributes.activation,
    ),
  ];
}

/** The words of linear, then threshold, marks, row scales and codes: mark, round, multiply. */
function encodeLlmInt8(encoder: StepEncoder, x: MatrixView, threshold: number): void {
  checkInt8Weight(encoder);
  const marks = encoder.scratch(x.columns * 4);
  const words = [...linearWords(encoder, x), float(threshold), marks];
  encoder.emit([...words, 0, 0], TAPE_OPCODE.markOutliers);
  const outliers = { threshold, marks };
  const { scales, codes } = encodeRounding(encoder, x, LLM_INT8_ROWS, { codes: true, outliers });
  encoder.emit([...words, scales, codes], TAPE_OPCODE.linearInt8);
}

function checkInt8Weight(encoder: StepEncoder): void {
  const operand = encoder.operand(1);
  const weight: PlanWeight | undefined = operand.kind === "weight"
    ? encoder.plan.weights[operand.weight]
    : undefined;
  if (weight?.format.kind === "quantized") {
    const { bits, value, groupSize, offset } = weight.format.layout;
    const isRowWise = groupSize === weight.shape[1] && offset === null;
    if (bits === 8 && value.kind === "integer" && isRowWise) return;
  }
  throw invalid("LLM.int8() needs 8-bit integer codes with one scale per row", weight?.name);
}

/** conv2d: output and input sizes, x and its strides, kernel geometry, weight, epilogue. */
export function encodeConvolution(encoder: StepEncoder): void {
  if (encoder.step.op !== "conv2d") return;
  const { kernel, stride, padding, upsample, activation } = encoder.step.attributes;
  const x = encoder.view(0);
  const weight = encoder.weight(1);
  const output = encoder.output();
  const [height, width, channels] = x.shape;
  const [outHeight, outWidth, outChannels] = output.shape;
  const [top, left, bottom, right] = padding;
  const expected = [height * upsample + top + bottom, width * upsample + left + right]
    .map((size) => Math.floor((size - kernel) / stride) + 1);
  const isValid = x.shape.length === 3 && output.shape.length === 3 &&
    weight.columns === kernel * kernel * channels && weight.rows === outChannels &&
    outHeight === expected[0] && outWidth === expected[1] && (channels === 1 || x.strides[2] === 1);
  if (!isValid) throw invalid("conv2d shapes differ", { x, weight, output });
  encoder.emit([
    outHeight,
    outWidth,
    outChannels,
    height,
    width,
    channels,
    x.address,
    x.strides[0],
    x.strides[1],
    kernel,
    stride,
    top,
    left,
    upsample === 2 ? 1 : 0,
    weight.address,
    ...epilogue(encoder, encoder.outputMatrix(), { bias: 2, residual: 3 }, activation),
  ]);
}
