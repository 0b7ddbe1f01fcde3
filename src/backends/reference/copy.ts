/** copy: any strided view to any strided view of the same shape. */

import { elementCount } from "../../tensor/shape.ts";
import type { StepContext } from "./step_context.ts";
import { checkShape, forEachRow } from "./walk.ts";

/** input -> output, element by element; int32 to float32 converts. */
export function runCopy(context: StepContext): void {
  const input = context.input(0), output = context.output;
  checkShape(input, output.shape);
  if (elementCount(output.shape) === 0) return;
  forEachRow(output.shape, [input, output], (length, [from, to], [fromStep, toStep]) => {
    for (let i = 0; i < length; i++) {
      output.data[to + i * toStep] = input.data[from + i * fromStep];
    }
  });
}
