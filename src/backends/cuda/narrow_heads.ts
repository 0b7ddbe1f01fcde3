/** Heads that attention by cuDNN reads in 16 bits, and that the steps which norm and rotate them can write so. */

import type { Plan, PlanStep } from "../../plan/plan.ts";
import type { Life } from "../../plan/place.ts";
import { aligned } from "../alignment.ts";
import type { MatrixView } from "../operand_view.ts";
import { type BufferHistory, matrixOf } from "./buffer_history.ts";
import type { Products } from "./cuda_step.ts";
import type { AttentionProblem } from "./dnn_problem.ts";
import { workspaceBytes } from "./library_product.ts";
import { OPERAND_BYTES, operandType } from "./matmul_precision.ts";

/** What cuDNN's heads are multiples of. */
const HEAD_UNIT = 8;
/** Operands of attention that are normed and rotated. */
const ROTATED = [0, 1] as const;

/** Rows [rows, columns] of 16 bits, close together. */
export interface NarrowHeads extends Life {
  /** The attention that reads them, and as which operand. */
  readonly reader: number;
  readonly operand: number;
  readonly problem: AttentionProblem;
  readonly rows: number;
  readonly columns: number;
  /** The first row of each step's part. */
  readonly firstRows: ReadonlyMap<number, number>;
}

/** The attention of a step as the library is asked for it; null where it is no such one. */
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
    workspaceBytes: workspaceBytes(4 * output.rows * output.columns),
  };
}

/** All heads of a plan that nobody but attention reads. */
export function findNarrowHeads(
  plan: Plan,
  history: BufferHistory,
  products: Products,
): NarrowHeads[] {
  return plan.steps.flatMap((step, reader) => {
    const problem = askedAttention(plan, step, products);
    if (problem === null) return [];
    return ROTATED.flatMap((operand) => headsOf(plan, history, problem, { reader, operand }) ?? []);
  });
}

function headsOf(
  plan: Plan,
  history: BufferHistory,
  problem: AttentionProblem,
  { reader, operand }: Pick<NarrowHeads, "reader" | "operand">,
): NarrowHeads | null {
  const input = plan.steps[reader]!.inputs[operand];
  if (input?.kind !== "activation") return null;
  const { rows, columns } = matrixOf(plan, input);
  if (rows !== (operand === 0 ? problem.queries : problem.keys)) return null;
  const firstRows = partsOf(plan, history, reader, operand);
  if (firstRows === null) return null;
  return {
    reader,
    operand,
    problem,
    rows,
    columns,
    firstRows,
    bytes: aligned(rows * columns * OPERAND_BYTES[problem.type]),
    firstStep: Math.min(...firstRows.keys()),
    lastStep: reader,
    offset: 0,
  };
}

/** The steps that make an operand of attention with the first row of each part; null where others make or read it. */
function partsOf(
  plan: Plan,
  history: BufferHistory,
  reader: number,
  operand: number,
): Map<number, number> | null {
  const input = plan.steps[reader]!.inputs[operand];
  if (input?.kind !== "activation") return null;
  const whole = matrixOf(plan, input);
  const firstRows = new Map<number, number>();
  let write = history.writesBefore(input.buffer, reader), left = whole.rows;
  while (left > 0) {
    if (write-- === 0) return null;
    const step = history.writer(input.buffer, write);
    const part = history.written(step);
    const first = firstRowOf(part, whole);
    if (plan.steps[step]!.op !== "headNormRope" || first === null) return null;
    firstRows.set(step, first);
    left -= part.rows;
  }
  const reads = history.readsAfter(input.buffer, write, whole);
  const isAlone = reads?.every((read) => read.step === reader && read.operand === operand);
  return left === 0 && isAlone ? firstRows : null;
}

/** Where rows of a matrix begin; null where they are none of it. */
function firstRowOf(part: MatrixView, whole: MatrixView): number | null {
  const first = (part.address - whole.address) / (4 * whole.stride);
  const isPart = part.columns === whole.columns &&
    (part.rows === 1 || part.stride === whole.stride) && Number.isInteger(first) && first >= 0 &&
    first + part.rows <= whole.rows;
  return isPart ? first : null;
}
