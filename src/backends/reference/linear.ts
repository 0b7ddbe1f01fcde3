/** linear: x times a weight in any layout, with everything that is fused to its end. */

import type { QuantizedActivations } from "../../ops/activation_mode.ts";
import type { OpAttributes } from "../../ops/op_table.ts";
import { dequantize } from "../../quantization/dequantize.ts";
import { tableValues } from "../integer_table.ts";
import { roundActivations } from "./activations.ts";
import { dotProducts, type Vectors } from "./dot.ts";
import { epilogue } from "./epilogue.ts";
import { runLlmInt8 } from "./llm_int8.ts";
import type { StepContext } from "./step_context.ts";
import { contiguousView, type MatrixView, matrixView, type StridedView } from "./strided_view.ts";

/** x [m, k], weight [n, k] -> output [m, n] = residual + gate * act(x weight^T + bias). */
export function runLinear(context: StepContext, attributes: OpAttributes["linear"]): void {
  const x = matrixView(context.input(0));
  const sink = epilogue({
    output: context.output,
    bias: context.optionalInput(2),
    gate: context.optionalInput(3),
    residual: context.optionalInput(4),
  }, attributes.activation);
  const mode = attributes.activations;
  if (mode.kind === "llm_int8") return runLlmInt8(context, x, mode.threshold, sink);
  const seen = mode.kind === "quantized" ? roundActivations(context, x, mode) : x;
  const weight = mode.kind === "quantized" ? weightUnder(context, mode) : context.input(1);
  dotProducts(matrixRows(seen), matrixRows(matrixView(weight)), x.columns, sink);
}

/** The weight dequantized with the table that the mode sees. */
function weightUnder(context: StepContext, mode: QuantizedActivations): StridedView {
  if (!mode.int16Tables || context.step.inputs[1]?.kind !== "weight") return context.input(1);
  const { stored } = context.weight(1);
  if (stored.kind === "dense" || stored.tensor.layout.value.kind === "integer") {
    return context.input(1);
  }
  const { layout, shape } = stored.tensor;
  const table = tableValues(stored.tensor.layout.value.table, mode);
  const values = dequantize({
    ...stored.tensor,
    layout: { ...layout, value: { kind: "table", table } },
  });
  context.count(values.byteLength);
  return contiguousView(values, shape);
}

/** The rows of a matrix as vectors. */
export function matrixRows(matrix: MatrixView): Vectors {
  return {
    data: matrix.data,
    offset: matrix.offset,
    count: matrix.rows,
    stride: matrix.rowStride,
    step: 1,
  };
}
