/** Encoders of the products: linear, matmul, conv2d. */

import { type Activation, UNARY_KINDS } from "../../ops/op_table.ts";
import { batchedView } from "../common_axes.ts";
import { invalid, type MatrixView } from "../operand_view.ts";
import { checkConvolution, checkLinear } from "../step_checks.ts";
import type { CudaStep, EncodedWeight, Grid } from "./cuda_step.ts";
import { launchDequantize } from "./encode_elements.ts";
import { encodeLlmInt8, roundedValues } from "./encode_rounding.ts";
import { address, float, integers, type Parameter, rows } from "./parameters.ts";

/** Rows and columns of a block's tile; kernels-cuda/gemm.h. */
const TILE = 64;
/** Rows of x up to which a quantized weight is read as it is stored: each of its tiles is read once. */
const FEW_ROWS = TILE;
/** Bytes of a slice that is dequantized for a product: it should stay in the second-level cache. */
const SLICE_BYTES = 16 * 1024 * 1024;

/** output, bias, gate, residual, output stride, activation: struct Epilogue; from column `first` on. */
function epilogue(
  step: CudaStep,
  output: MatrixView,
  operands: { bias: number; gate?: number; residual: number },
  activation: Activation,
  first = 0,
): Parameter[] {
  const shifted = ([place, stride]: readonly [number, number]): [number, number] => [
    place === 0 ? 0 : place + 4 * first,
    stride,
  ];
  const optional = (operand: number | undefined): Parameter[] =>
    rows(operand === undefined ? [0, 0] : shifted(step.rows(operand, output.rows, output.columns)));
  const [bias] = shifted([step.vector(operands.bias, output.columns), 0]);
  return [
    address(output.address + 4 * first),
    address(bias),
    ...optional(operands.gate),
    ...optional(operands.residual),
    ...integers(output.stride, UNARY_KINDS.indexOf(activation)),
  ];
}

function tiles(count: number, columns: number): Grid {
  return [Math.ceil(columns / TILE), Math.ceil(count / TILE), 1];
}

/** linear: few rows read the weight as stored; many have it dequantized, slice by slice. */
export function encodeLinear(step: CudaStep): void {
  if (step.step.op !== "linear") return;
  const { activation, activations: mode } = step.step.attributes;
  const given = step.matrix(0);
  const weight = step.weight(1, mode.kind === "quantized" ? mode : undefined);
  const output = step.outputMatrix();
  checkLinear(given, weight, output);
  const operands = { bias: 2, gate: 3, residual: 4 };
  if (mode.kind === "llm_int8") {
    const end = epilogue(step, output, operands, activation);
    return encodeLlmInt8(step, given, weight, end, mode.threshold);
  }
  const x = mode.kind === "quantized" ? roundedValues(step, given, mode) : given;
  if (weight.floats || x.rows > FEW_ROWS) {
    return launchSlices(
      step,
      x,
      weight,
      output,
      (first) => epilogue(step, output, operands, activation, first),
    );
  }
  step.launch("linear", tiles(x.rows, weight.rows), [
    ...rows([x.address, x.stride]),
    ...epilogue(step, output, operands, activation),
    ...weight.descriptor,
    ...integers(x.rows, weight.rows, x.columns, 0),
  ]);
}

/** linear_float over all float32 rows, or over slices of a weight's rows: output columns, in turn. */
function launchSlices(
  step: CudaStep,
  x: MatrixView,
  weight: EncodedWeight,
  output: MatrixView,
  end: (firstColumn: number) => Parameter[],
): void {
  const product = (first: number, count: number, floats: readonly [number, number]): void =>
    step.launch("linear_float", tiles(output.rows, count), [
      ...rows([x.address, x.stride]),
      ...rows(floats),
      ...end(first),
      ...integers(x.rows, count, x.columns, 0),
    ]);
  if (weight.floats) return product(0, weight.rows, weight.floats);
  const { columns } = weight;
  const most = Math.min(weight.rows, Math.max(TILE, Math.floor(SLICE_BYTES / (4 * columns))));
  const slice = step.scratch(most * columns * 4);
  for (let first = 0; first < weight.rows; first += most) {
    const count = Math.min(most, weight.rows - first);
    launchDequantize(step, weight, [first, count], [slice, columns]);
    product(first, count, [slice, columns]);
  }
}

/** matmul: address and strides[3] of a, b and output, m, n, k, scale; a batch is a layer of blocks. */
export function encodeMatmul(step: CudaStep): void {
  if (step.step.op !== "matmul") return;
  const [a, b, output] = [step.view(0), step.view(1), step.output()].map(batchedView);
  const [batch, m, n] = output!.shape as [number, number, number];
  const k = a!.shape[2]!;
  if ([a!.shape, b!.shape].join() !== [[batch, m, k], [batch, n, k]].join()) {
    throw invalid("matmul shapes differ", { a: a!.shape, b: b!.shape, output: output!.shape });
  }
  const [across, down] = tiles(m, n);
  step.launch("matmul", [across, down, batch], [
    ...[a!, b!, output!].flatMap((view) => [
      address(view.address),
      ...integers(...view.strides, 0),
    ]),
    ...integers(m, n, k),
    float(step.step.attributes.scale),
  ]);
}

/** conv2d: x, epilogue, weight, sizes, strides of x, kernel geometry. */
export function encodeConv2d(step: CudaStep): void {
  if (step.step.op !== "conv2d") return;
  const { kernel, stride, padding, upsample, activation } = step.step.attributes;
  const x = step.view(0);
  const weight = step.weight(1);
  const output = step.output();
  checkConvolution(step.step.attributes, x, weight, output);
  const [outHeight, outWidth, outChannels] = output.shape as [number, number, number];
  const [height, width, channels] = x.shape as [number, number, number];
  step.launch("conv2d", tiles(outHeight * outWidth, outChannels), [
    address(x.address),
    ...epilogue(step, step.outputMatrix(), { bias: 2, residual: 3 }, activation),
    ...weight.descriptor,
    ...integers(outHeight, outWidth, outChannels, height, width, channels),
    ...integers(x.strides[0]!, x.strides[1]!, kernel, stride, padding[0], padding[1], upsample, 0),
  ]);
}
