/** unary and binary: one function over every element, rounded once to float32. */

import type { OpAttributes } from "../../ops/op_table.ts";
import { BINARY_FUNCTIONS, unaryFunction } from "./functions.ts";
import type { StepContext } from "./step_context.ts";
import { floatData } from "./strided_view.ts";
import { checkShape, forEachRow } from "./walk.ts";

/** input -> output. */
export function runUnary(context: StepContext, attributes: OpAttributes["unary"]): void {
  const input = context.input(0), output = context.output;
  checkShape(input, output.shape);
  const from = floatData(input), to = floatData(output);
  const apply = unaryFunction(attributes.kind, attributes.multiplier, attributes.addend);
  forEachRow(output.shape, [input, output], (length, at, step) => {
    for (let i = 0; i < length; i++) to[at[1] + i * step[1]] = apply(from[at[0] + i * step[0]]);
  });
}

/** a, b -> output. */
export function runBinary(context: StepContext, attributes: OpAttributes["binary"]): void {
  const a = context.input(0), b = context.input(1), output = context.output;
  checkShape(a, output.shape);
  checkShape(b, output.shape);
  const left = floatData(a), right = floatData(b), to = floatData(output);
  const apply = BINARY_FUNCTIONS[attributes.kind];
  forEachRow(output.shape, [a, b, output], (length, at, step) => {
    for (let i = 0; i < length; i++) {
      to[at[2] + i * step[2]] = apply(left[at[0] + i * step[0]], right[at[1] + i * step[1]]);
    }
  });
}
