/** What one step of a plan sees: its operands as views, its weights, and scratch that is counted. */

import { HalftoneError } from "../../errors.ts";
import { dequantize } from "../../quantization/dequantize.ts";
import type { ActivationOperand, PlanOperand, PlanStep, PlanWeight } from "../../plan/plan.ts";
import type { StoredWeight } from "../backend.ts";
import { OP_TABLE } from "../../ops/op_table.ts";
import type { MemoryLedger } from "../memory_ledger.ts";
import { contiguousView, type StridedView } from "./strided_view.ts";

/** The memory a program runs in. */
export interface ProgramMemory {
  readonly floats: Float32Array;
  readonly integers: Int32Array;
  /** Byte offset of each buffer. */
  readonly bufferOffsets: readonly number[];
  /** The stored weights, in plan order. */
  readonly weights: readonly { plan: PlanWeight; stored: StoredWeight }[];
}

/** A weight as a step gets it. */
export interface StepWeight {
  readonly name: string;
  readonly stored: StoredWeight;
}

/** The operands of one step; what it borrows is given back by `release`. */
export class StepContext {
  readonly step: PlanStep;
  readonly #memory: ProgramMemory;
  readonly #ledger: MemoryLedger;
  #scratchBytes = 0;

  constructor(step: PlanStep, memory: ProgramMemory, ledger: MemoryLedger) {
    this.step = step;
    this.#memory = memory;
    this.#ledger = ledger;
  }

  /** The output. */
  get output(): StridedView {
    return this.#activation(this.step.output);
  }

  /** Input `index`; weights come dequantized to float32. Throws plan_invalid where it is absent. */
  input(index: number): StridedView {
    return this.optionalInput(index) ?? this.#missing(index);
  }

  /** Input `index`, or null where it is absent. */
  optionalInput(index: number): StridedView | null {
    const operand = this.step.inputs[index] ?? null;
    if (operand === null) return null;
    return operand.kind === "activation" ? this.#activation(operand) : this.#dense(operand.weight);
  }

  /** Input `index` as a stored weight; throws plan_invalid where it is none. */
  weight(index: number): StepWeight {
    const operand: PlanOperand | null | undefined = this.step.inputs[index];
    if (operand?.kind !== "weight") return this.#missing(index);
    const { plan, stored } = this.#memory.weights[operand.weight];
    return { name: plan.name, stored };
  }

  /** Counted scratch of float32 values, zero-filled. */
  scratchFloats(length: number): Float32Array {
    this.count(length * 4);
    return new Float32Array(length);
  }

  /** Counted scratch of float64 values, zero-filled. */
  scratchDoubles(length: number): Float64Array {
    this.count(length * 8);
    return new Float64Array(length);
  }

  /** Counts bytes that the step holds until its end. */
  count(bytes: number): void {
    this.#scratchBytes += bytes;
    this.#ledger.take("scratch", bytes);
  }

  /** Gives back all that was counted. */
  release(): void {
    this.#ledger.free("scratch", this.#scratchBytes);
    this.#scratchBytes = 0;
  }

  #activation(operand: ActivationOperand): StridedView {
    const data = operand.dtype === "float32" ? this.#memory.floats : this.#memory.integers;
    const offset = this.#memory.bufferOffsets[operand.buffer] / 4 + operand.offset;
    return { data, offset, shape: operand.shape, strides: operand.strides };
  }

  #dense(index: number): StridedView {
    const { plan, stored } = this.#memory.weights[index];
    const values = stored.kind === "dense" ? stored.tensor.toFloat32() : dequantize(stored.tensor);
    if (!isFloat32(stored)) this.count(values.byteLength);
    return contiguousView(values, plan.shape);
  }

  #missing(index: number): never {
    throw new HalftoneError("plan_invalid", `Cannot run ${this.step.op}: an operand is missing`, {
      field: OP_TABLE[this.step.op].operands[index],
    });
  }
}

/** Whether a stored weight can be read in place. */
export function isFloat32(stored: StoredWeight): boolean {
  return stored.kind === "dense" && stored.tensor.dtype === "float32";
}
