/** Which attention cuDNN is asked for. */

import type { Plan, PlanStep } from "../../plan/plan.ts";
import { matrixOf } from "./buffer_history.ts";
import type { Products } from "./cuda_step.ts";
import type { AttentionProblem } from "./dnn_problem.ts";
import { workspaceBytes } from "./library_product.ts";
import { operandType } from "./matmul_precision.ts";

/** What cuDNN's heads are multiples of. */
const HEAD_UNIT = 8;

/** The attention of a step as the library is asked for it, rows close together; null where it is no such one. */
export function askedAttention(
  plan: Plan,
  step: PlanStep,
  { precision, dnn }: Products,
): AttentionProblem | null {
  const type = operandType(precision);
  if (step.op !== "attention" || type === "float32" || !dnn?.hasAttention) return null;
  const { heads, scale, causal, qkDtype } = step.attributes;
  const [, k, , bias] = step.inputs;
  if (causal || qkDtype !== undefined || bias || k?.kind !== "activation") return null;
  const output = matrixOf(plan, step.output);
  const keys = matrixOf(plan, k).rows;
  const size = output.columns / heads;
  if (size % HEAD_UNIT !== 0 || keys === 0) return null;
  return {
    kind: "attention",
    type,
    heads,
    size,
    queries: output.rows,
    keys,
    scale,
    outputStride: output.columns,
    workspaceBytes: workspaceBytes(4 * output.rows * output.columns),
  };
}
