/** As what linear layers take their activations: codes, or rows of 16 bits. */

import type { ActivationMode, QuantizedActivations } from "../../ops/activation_mode.ts";
import type { Plan, PlanStep } from "../../plan/plan.ts";
import { weightMatrix } from "../step_operands.ts";
import { isFloat8Weight, isInt8Weight } from "./coded_weight.ts";
import { matrixOf } from "./buffer_history.ts";
import type { Products } from "./cuda_step.ts";
import { operandType } from "./matmul_precision.ts";
import type { NarrowType } from "./plain_rows.ts";
import { FEW_ROWS } from "./tiles.ts";

/** The product of a layer over codes. */
export type TakenCodes =
  | { readonly kind: "int8" | "float8"; readonly mode: QuantizedActivations }
  | { readonly kind: "llm_int8"; readonly mode: ActivationMode & { readonly kind: "llm_int8" } };

/** What a layer's activations are rounded to before its product. */
export type TakenRows = TakenCodes | { readonly kind: "narrow"; readonly type: NarrowType };

/** As what a step takes its activations; null where it is no linear layer, or takes them as they are. */
export function rowsTaken(plan: Plan, step: PlanStep, products: Products): TakenRows | null {
  const codes = codesTaken(plan, step, products);
  if (codes !== null || step.op !== "linear") return codes;
  const [x] = step.inputs;
  const type = operandType(products.precision);
  const isFloat = step.attributes.activations.kind === "float" && x?.kind === "activation";
  if (!isFloat || type === "float32" || matrixOf(plan, x).rows <= FEW_ROWS) return null;
  return { kind: "narrow", type };
}

/** The codes that a step multiplies; null where it is no linear layer, or multiplies floats. */
export function codesTaken(plan: Plan, step: PlanStep, products: Products): TakenCodes | null {
  if (step.op !== "linear") return null;
  const { activations: mode } = step.attributes;
  const [x, operand] = step.inputs;
  if (mode.kind === "float" || x?.kind !== "activation" || operand?.kind !== "weight") return null;
  if (mode.kind === "llm_int8") return { kind: "llm_int8", mode };
  if (matrixOf(plan, x).rows <= FEW_ROWS) return null;
  const weight = plan.weights[operand.weight]!;
  if (weight.format.kind === "dense") return null;
  const rows = { ...weightMatrix(weight), coded: { layout: weight.format.layout } };
  if (mode.dtype === "int8" && isInt8Weight(rows)) return { kind: "int8", mode };
  const isFloat8 = mode.dtype === "float8_e4m3fn" && multipliesFloat8(products) &&
    isFloat8Weight(rows);
  return isFloat8 ? { kind: "float8", mode } : null;
}

/** Float8 units sum in less than float32 has. */
function multipliesFloat8({ precision, library }: Products): boolean {
  return precision !== "float32" && library?.multipliesFloat8 === true;
}
