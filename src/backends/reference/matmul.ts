/** matmul: batched products of activations, any strides. */

import type { OpAttributes } from "../../ops/op_table.ts";
import { dotProducts, type Vectors } from "./dot.ts";
import type { StepContext } from "./step_context.ts";
import { floatData, type StridedView } from "./strided_view.ts";

/** a [batch, m, k], b [batch, n, k] -> output [batch, m, n] = scale * a b^T. */
export function runMatmul(context: StepContext, attributes: OpAttributes["matmul"]): void {
  const a = batched(context.input(0)), b = batched(context.input(1));
  const output = batched(context.output);
  const to = floatData(output);
  const [, rowStride, columnStride] = output.strides;
  for (let batch = 0; batch < output.shape[0]; batch++) {
    const start = output.offset + batch * output.strides[0];
    dotProducts(vectors(a, batch), vectors(b, batch), a.shape[2], (row, column, sum) => {
      to[start + row * rowStride + column * columnStride] = attributes.scale * sum;
    });
  }
}

/** A matrix is a batch of one. */
function batched(view: StridedView): StridedView {
  if (view.shape.length === 3) return view;
  return { ...view, shape: [1, ...view.shape], strides: [0, ...view.strides] };
}

function vectors(view: StridedView, batch: number): Vectors {
  const index = view.shape[0] === 1 ? 0 : batch;
  return {
    data: floatData(view),
    offset: view.offset + index * view.strides[0],
    count: view.shape[1],
    stride: view.strides[1],
    step: view.strides[2],
  };
}
