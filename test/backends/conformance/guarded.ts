/**
 * Plans with guard zones: every buffer stands between two zones of NaN, and starts as NaN itself. An op
 * that reads beyond its operands carries a NaN into its result; one that writes beyond its output
 * changes a zone. Zones and poison are extra inputs and outputs, so that any backend can run it.
 */

import type { ActivationOperand, Plan, PlanBuffer } from "../../../src/plan/plan.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";

/** Bytes of a zone: more than a kernel's vectors, less than would hide a small buffer's overrun. */
const ZONE = 256;

/** A plan with zones, what to write before a run, and what must be unchanged after it. */
export interface GuardedPlan {
  readonly plan: Plan;
  /** NaN for zones and for all buffers but inputs and constants. */
  readonly poison: ReadonlyMap<string, HostTensor>;
  /** Outputs that must still equal their poison. */
  readonly zones: readonly string[];
}

/** Spreads the buffers of a plan and puts zones between them. */
export function guardPlan(plan: Plan): GuardedPlan {
  const buffers: PlanBuffer[] = [];
  const inputs = { ...plan.inputs }, outputs = { ...plan.outputs };
  const poison = new Map<string, HostTensor>();
  const zones: string[] = [];
  let offset = ZONE;
  for (const buffer of plan.buffers) {
    buffers.push({ ...buffer, offset });
    offset += buffer.bytes + ZONE;
  }
  plan.buffers.forEach((buffer, index) => {
    if (buffer.role === "input" || buffer.role === "constant") return;
    inputs[`poison ${index}`] = whole(index, buffer.bytes);
    poison.set(`poison ${index}`, nans(buffer.bytes));
  });
  for (let zone = 0; zone <= plan.buffers.length; zone++) {
    const end = zone < plan.buffers.length ? buffers[zone].offset : offset;
    const name = `zone ${zone}`;
    const operand = whole(buffers.length, ZONE);
    buffers.push({ ...zoneBuffer(plan), offset: end - ZONE });
    inputs[name] = operand;
    outputs[name] = operand;
    poison.set(name, nans(ZONE));
    zones.push(name);
  }
  return { plan: { ...plan, buffers, inputs, outputs, arenaBytes: offset }, poison, zones };
}

function zoneBuffer(plan: Plan): Omit<PlanBuffer, "offset"> {
  const lastStep = Math.max(0, plan.steps.length - 1);
  return { role: "output", bytes: ZONE, firstStep: 0, lastStep };
}

function whole(buffer: number, bytes: number): ActivationOperand {
  const shape = [bytes / 4];
  return { kind: "activation", buffer, dtype: "float32", offset: 0, shape, strides: [1] };
}

/** NaNs of one bit pattern. */
function nans(bytes: number): HostTensor {
  const words = new Uint32Array(bytes / 4).fill(0x7fc0a5a5);
  return new HostTensor("float32", [words.length], new Uint8Array(words.buffer));
}
