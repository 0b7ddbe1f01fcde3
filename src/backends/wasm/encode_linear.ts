/** Encoder of linear, and the end it shares with conv2d: bias, activation, gate, residual. */

import { type Activation, UNARY_KINDS } from "../../ops/op_table.ts";
import type { QuantizedLayout } from "../../quantization/quantized_tensor.ts";
import type { StepEncoder } from "./encode.ts";
import { encodeRounding } from "./encode_activations.ts";
import { invalid, type MatrixView } from "../operand_view.ts";
import { checkLinear } from "../step_checks.ts";
import { formWords, type IntegerForm } from "./integer_weight.ts";
import { rowRounding, type SharedRows } from "./rounded_rows.ts";
import { float, TAPE_OPCODE, type Word } from "./tape_writer.ts";

/** output, bias, gate, residual, activation. */
export function epilogue(
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
  const x = encoder.matrix(0);
  const rounding = rowRounding(encoder.plan, encoder.step);
  const { rounded } = encoder;
  if (!rounding || !rounded) return encodeFloat(encoder, x);
  const { form, threshold } = rounding;
  if (threshold !== null) return encodeLlmInt8(encoder, x, rounded, form, threshold);
  if (form) return encodeInteger(encoder, x, rounded, form);
  const { values } = encodeRounding(encoder, x, rounded);
  encodeFloat(encoder, { ...x, address: values, stride: x.columns });
}

/** Rows of a micro tile; kernels-wasm/src/gemm.rs holds the same. */
const STRIP_ROWS = 6;
/** Rows that are packed at once: what bounds the scratch. */
const PACKED_ROWS = 128 * STRIP_ROWS;
/** From so many on: fewer rows are not packed at all, fewer columns make one tile, which packs its rows itself. */
const LEAST_ROWS = 5;
const LEAST_COLUMNS = 128;

/**
 * The words of linear, then the first row, rows, and where they lie packed. Where several tiles of columns would
 * each pack the same rows, a step before packs them for all.
 */
function encodeFloat(encoder: StepEncoder, x: MatrixView): void {
  const words = linearWords(encoder, x);
  const { columns } = encoder.outputMatrix();
  if (x.rows < LEAST_ROWS || columns < LEAST_COLUMNS) {
    return encoder.emit([...words, 0, x.rows, 0, 0]);
  }
  const strips = Math.ceil(Math.min(x.rows, PACKED_ROWS) / STRIP_ROWS);
  const packed = encoder.scratch(strips * STRIP_ROWS * Math.ceil(x.columns / 4) * 16);
  for (let first = 0; first < x.rows; first += PACKED_ROWS) {
    const rows = Math.min(PACKED_ROWS, x.rows - first);
    const parameters = [...words, first, rows, packed, strips * STRIP_ROWS];
    encoder.emit(parameters, TAPE_OPCODE.packRows);
    encoder.emit(parameters);
  }
}

/** The layout of the weight; undefined when it is dense. */
function quantizedLayout(encoder: StepEncoder): QuantizedLayout | undefined {
  const operand = encoder.operand(1);
  if (operand.kind !== "weight") return undefined;
  const { format } = encoder.plan.weights[operand.weight];
  return format.kind === "quantized" ? format.layout : undefined;
}

/** The words of linear, then scales, zeros and strips of the rows of x, and the form of the weight. */
function encodeInteger(
  encoder: StepEncoder,
  x: MatrixView,
  rounded: SharedRows,
  form: IntegerForm,
): void {
  const { scale } = rounded.rounding.mode;
  const { scales, zeros, strips } = encodeRounding(encoder, x, rounded);
  const hasZeros = scale.kind === "static" ? scale.zero !== 0 : scale.mapping === "asymmetric";
  const places = [scales, hasZeros ? zeros : 0, ...strips];
  encoder.emit(
    [...linearWords(encoder, x), ...places, ...formWords(form)],
    TAPE_OPCODE.linearInteger,
  );
}

/** m, n, k, x, weight, epilogue. */
function linearWords(encoder: StepEncoder, x: MatrixView): Word[] {
  if (encoder.step.op !== "linear") return [];
  const weight = encoder.weight(1);
  const output = encoder.outputMatrix();
  checkLinear(x, weight, output);
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

/** The words of linear, then threshold, marks, row scales, strips, form: mark, round, multiply. */
function encodeLlmInt8(
  encoder: StepEncoder,
  x: MatrixView,
  rounded: SharedRows,
  form: IntegerForm | null,
  threshold: number,
): void {
  const layout = quantizedLayout(encoder);
  if (layout?.bits !== 8 || layout.groupSize !== x.columns || !form?.isExact) {
    throw invalid(
      "LLM.int8() needs 8-bit integer codes with one scale per row",
      encoder.operand(1),
    );
  }
  const { marks } = rounded.places(encoder.placement.stepScratch);
  const words = [...linearWords(encoder, x), float(threshold), marks];
  if (!rounded.isMade) encoder.emit([...words, 0, 0], TAPE_OPCODE.markOutliers);
  const { scales, strips } = encodeRounding(encoder, x, rounded);
  encoder.emit([...words, scales, ...strips, ...formWords(form)], TAPE_OPCODE.linearInt8);
}
