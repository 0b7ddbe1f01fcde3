/** The operands of one step as addresses, checked: what the encoders of every native backend see. */

import type { Plan, PlanOperand, PlanStep, PlanWeight } from "../plan/plan.ts";
import { aligned } from "./alignment.ts";
import {
  type AddressedView,
  addressView,
  invalid,
  type MatrixView,
  matrixView,
} from "./operand_view.ts";

/** Where the weights of a step lie. */
export interface UnitPlaces {
  /** Address of a weight's unit during a step. */
  unit(weight: number, step: number): number;
}

/** Rows and columns of a weight that serves as a matrix; a vector is a column. */
export function weightMatrix({ shape }: PlanWeight): { rows: number; columns: number } {
  return { rows: shape[0], columns: shape.slice(1).reduce((a, b) => a * b, 1) };
}

/** The operands of one step. */
export class StepOperands {
  readonly plan: Plan;
  readonly index: number;
  readonly step: PlanStep;
  /** Bytes of step scratch used so far. */
  scratchBytes = 0;
  readonly #arena: number;
  readonly #stepScratch: number;
  readonly #weights: UnitPlaces;

  /** `arena` and `stepScratch` are addresses; steps use the scratch one after another. */
  constructor(plan: Plan, index: number, arena: number, stepScratch: number, weights: UnitPlaces) {
    this.plan = plan;
    this.index = index;
    this.step = plan.steps[index];
    this.#arena = arena;
    this.#stepScratch = stepScratch;
    this.#weights = weights;
  }

  /** The output's view. */
  output(): AddressedView {
    return addressView(this.plan, this.step.output, this.#arena);
  }

  /** The output as a matrix. */
  outputMatrix(): MatrixView {
    return matrixView(this.output());
  }

  /** Whether an optional operand is there. */
  has(operand: number): boolean {
    return (this.step.inputs[operand] ?? null) !== null;
  }

  /** A required operand. */
  operand(operand: number): PlanOperand {
    const found = this.step.inputs[operand] ?? null;
    if (found === null) throw invalid("an operand is missing", { op: this.step.op, operand });
    return found;
  }

  /** An operand's view; a weight must be kept in float32. */
  view(operand: number): AddressedView {
    const input = this.operand(operand);
    if (input.kind === "activation") return addressView(this.plan, input, this.#arena);
    const { shape, format, name } = this.plan.weights[input.weight];
    const isFloat = format.kind === "dense" && (shape.length === 1 || format.dtype === "float32");
    if (!isFloat) throw invalid("a float32 operand is needed", name);
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    return { address: this.#weights.unit(input.weight, this.index), shape, strides };
  }

  /** An operand as a matrix. */
  matrix(operand: number): MatrixView {
    return matrixView(this.view(operand));
  }

  /** The address of an optional vector; 0 when it is absent. */
  vector(operand: number, columns: number): number {
    if (!this.has(operand)) return 0;
    const matrix = this.matrix(operand);
    if (matrix.rows !== 1 || matrix.columns !== columns) {
      throw invalid("a vector has another length", { found: matrix, expected: columns });
    }
    return matrix.address;
  }

  /** Address and row stride of an optional operand [1 | rows, columns]; zeros when it is absent. */
  rows(operand: number, rows: number, columns: number): [address: number, stride: number] {
    if (!this.has(operand)) return [0, 0];
    const matrix = this.matrix(operand);
    if (matrix.columns !== columns || (matrix.rows !== rows && matrix.rows !== 1)) {
      throw invalid("an operand has another shape", { found: matrix, expected: [rows, columns] });
    }
    return [matrix.address, matrix.rows === 1 ? 0 : matrix.stride];
  }

  /** Address of a weight's unit during this step. */
  unit(weight: number): number {
    return this.#weights.unit(weight, this.index);
  }

  /** A region of step scratch; regions of one step do not overlap. */
  scratch(bytes: number): number {
    const address = this.#stepScratch + this.scratchBytes;
    this.scratchBytes += aligned(bytes);
    return address;
  }
}
