/** A plan as text: one line per buffer, weight and step. Equal plans have equal text and hash. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import type { ScaleLayout } from "../quantization/quantized_tensor.ts";
import type { ActivationOperand, Plan, PlanOperand, PlanStep, WeightFormat } from "./plan.ts";

/** What `planText` prints; a plan before it has a hash. */
export type PlanBody = Omit<Plan, "hash">;

/** The plan as text. */
export function planText(plan: PlanBody): string {
  return [
    `plan ${plan.name}: ${plan.steps.length} steps, arena ${plan.arenaBytes} bytes, ` +
    `${plan.weights.length} weights of ${plan.weightBytes} bytes`,
    ...plan.buffers.map((buffer, index) =>
      `buffer b${index} ${buffer.role} ${buffer.bytes} bytes at ${buffer.offset}, ` +
      `steps ${buffer.firstStep}..${buffer.lastStep}`
    ),
    ...Object.entries(plan.inputs).map(([name, operand]) => `input ${name} ${view(operand)}`),
    ...plan.constants.map(({ operand, value }) =>
      `constant ${view(operand)} sha256 ${shortHash(value.bytes)}`
    ),
    ...plan.weights.map((weight) =>
      `weight ${weight.name} [${weight.shape}] ${formatText(weight.format)}` +
      (weight.arrangement === "rows" ? "" : ` ${weight.arrangement}`)
    ),
    ...plan.steps.map((step, index) => `${index}: ${stepText(plan, step)}`),
    ...Object.entries(plan.outputs).map(([name, operand]) => `output ${name} ${view(operand)}`),
    "",
  ].join("\n");
}

/** The first 16 hex digits of the SHA-256 of the plan's text. */
export function planHash(plan: PlanBody): string {
  return shortHash(new TextEncoder().encode(planText(plan)));
}

function shortHash(bytes: Uint8Array): string {
  return bytesToHex(sha256(bytes)).slice(0, 16);
}

function stepText(plan: PlanBody, step: PlanStep): string {
  const attributes = Object.entries(step.attributes)
    .map(([name, value]) => ` ${name}=${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join("");
  const inputs = step.inputs.map((operand) => operandText(plan, operand)).join(", ");
  return `${view(step.output)} = ${step.op}(${inputs})${attributes}`;
}

function operandText(plan: PlanBody, operand: PlanOperand | null): string {
  if (!operand) return "-";
  return operand.kind === "weight" ? `"${plan.weights[operand.weight].name}"` : view(operand);
}

function view(operand: ActivationOperand): string {
  const { buffer, offset, shape, strides, dtype } = operand;
  const type = dtype === "float32" ? "" : ` ${dtype}`;
  return `b${buffer}+${offset}[${shape}]/[${strides}]${type}`;
}

/** A weight format in a few words, such as "bfloat16" or "4-bit table, group 64". */
export function formatText(format: WeightFormat): string {
  if (format.kind === "dense") return format.dtype;
  const { bits, value, groupSize, scale, offset } = format.layout;
  const code = value.kind === "table"
    ? `table ${shortHash(new Uint8Array(value.table.slice().buffer))}`
    : `integer zero ${value.zeroPoint}`;
  return `${bits}-bit ${code}, group ${groupSize}, scale ${scaleText(scale)}` +
    (offset ? `, offset ${scaleText(offset)}` : "");
}

/** Constants of a tensor's own data (a two-level scale's constant) do not change the plan. */
function scaleText(scale: ScaleLayout): string {
  if (scale.kind === "float") return scale.dtype;
  return `${scale.bits}-bit ${scale.value.kind} x ${scale.superDtype} per ${scale.superGroupSize}`;
}
