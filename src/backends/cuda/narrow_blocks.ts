/**
 * Matrices that live in 16 bits: whoever reads them (linear layers, attention by cuDNN) would round them to that, and
 * whoever writes them can. They lie in a region beside the arena, so that no pass over memory rounds or widens them.
 */

import type { Life } from "../../plan/place.ts";
import type { Plan, PlanStep } from "../../plan/plan.ts";
import { aligned } from "../alignment.ts";
import { askedAttention } from "./asked_attention.ts";
import { type Access, type Epoch, findEpochs } from "./buffer_epochs.ts";
import type { Products } from "./cuda_step.ts";
import { OPERAND_BYTES, operandType } from "./matmul_precision.ts";
import type { NarrowType } from "./plain_rows.ts";
import { codesTaken, rowsTaken } from "./rows_taken.ts";

/** What rows of 16 bits are multiples of for cuDNN. */
const ROW_UNIT = 8;

/** A matrix [rows, columns] of 16 bits, rows close together. */
export interface NarrowBlock extends Life {
  readonly type: NarrowType;
  readonly rows: number;
  readonly columns: number;
  readonly writes: readonly Access[];
  /** By those who take it in 16 bits. */
  readonly reads: readonly Access[];
  /** Whether it is wanted as float32 as well, which norms write beside. */
  readonly keepsFloats: boolean;
  /** The attention that reads it: where the library refuses that, nobody uses the block. */
  readonly attention: number | null;
}

/** All such matrices of a plan. */
export function findNarrowBlocks(plan: Plan, products: Products): NarrowBlock[] {
  const type = operandType(products.precision);
  if (type === "float32") return [];
  return findEpochs(plan).flatMap((epoch) => blockOf(plan, products, type, epoch) ?? []);
}

function blockOf(
  plan: Plan,
  products: Products,
  type: NarrowType,
  epoch: Epoch,
): NarrowBlock | null {
  const { rows, columns, writes } = epoch;
  const reads = epoch.reads.filter((read) => isTakenNarrow(plan, products, epoch, read));
  const attentions = new Set(
    reads.map(({ step }) => step).filter((step) => plan.steps[step]!.op === "attention"),
  );
  const [attention = null] = attentions;
  const isForOne = attention === null || reads.every(({ step }) => step === attention);
  const keepsFloats = reads.length < epoch.reads.length ||
    plan.buffers[epoch.buffer]!.role !== "temporary";
  const isWritten = writes.every((write) =>
    canWrite(plan.steps[write.step]!, epoch, write, keepsFloats)
  );
  // Who writes codes does not write 16 bits as well.
  const hasCodes = epoch.reads.some(({ step }) =>
    codesTaken(plan, plan.steps[step]!, products) !== null
  );
  if (reads.length === 0 || !isForOne || !isWritten || hasCodes) return null;
  return {
    type,
    rows,
    columns,
    writes,
    reads,
    keepsFloats,
    attention,
    bytes: aligned(rows * columns * OPERAND_BYTES[type]),
    firstStep: Math.min(...writes.map(({ step }) => step)),
    lastStep: Math.max(...reads.map(({ step }) => step)),
    offset: 0,
  };
}

function isTakenNarrow(plan: Plan, products: Products, epoch: Epoch, read: Access): boolean {
  const step = plan.steps[read.step]!;
  if (step.op === "linear") {
    return read.operand === 0 && rowsTaken(plan, step, products)?.kind === "narrow";
  }
  const problem = askedAttention(plan, step, products);
  const rows = read.operand === 0 ? problem?.queries : problem?.keys;
  return rows === read.rows && read.columns === epoch.columns;
}

/** Whether a step can write its part in 16 bits, or, where floats are wanted too, both. */
function canWrite(step: PlanStep, epoch: Epoch, write: Access, keepsFloats: boolean): boolean {
  switch (step.op) {
    case "norm":
      return step.attributes.kind !== "group" && write.columns === epoch.columns;
    case "headNormRope":
    case "linear":
      return !keepsFloats;
    case "attention":
      return !keepsFloats && write.column % ROW_UNIT === 0 && epoch.columns % ROW_UNIT === 0;
    default:
      return false;
  }
}
