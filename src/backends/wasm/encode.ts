/** Encodes a plan as a tape: each step becomes the parameter words of one or more kernels. */

import type { Plan, PlanOperand, PlanStep } from "../../plan/plan.ts";
import { OP_TABLE, type OpName } from "../../ops/op_table.ts";
import { DESCRIPTOR_WORDS } from "./weight_layout.ts";
import { encodeBinary, encodeCopy, encodeMatmul } from "./encode_strided.ts";
import { encodeConvolution, encodeLinear } from "./encode_linear.ts";
import { encodeAttention, encodeHeadNormRope, encodeNorm } from "./encode_fused.ts";
import { encodeGather, encodeReduce, encodeUnary, encodeUnpack } from "./encode_rows.ts";
import {
  type AddressedView,
  addressView,
  invalid,
  type MatrixView,
  matrixView,
} from "./operand_view.ts";
import { aligned } from "./region_allocator.ts";
import { TapeWriter, type Word } from "./tape_writer.ts";

/** Where the weights of a step lie. */
export interface WeightPlaces {
  /** Address of a weight's unit during a step. */
  unit(weight: number, step: number): number;
  /** Address of the descriptor of a weight during a step. */
  descriptor(weight: number, step: number): number;
}

/** Addresses a tape is encoded for. */
export interface Placement {
  readonly arena: number;
  /** Scratch that steps share, one after another. */
  readonly stepScratch: number;
  readonly weights: WeightPlaces;
  /** Gives the address of a descriptor for a matrix in the arena that serves as a weight. */
  matrixDescriptor(matrix: MatrixView): number;
  /** Called before and after each plan step is encoded (streaming marks segments there). */
  readonly beforeStep?: (step: number, tape: TapeWriter) => void;
  readonly afterStep?: (step: number, tape: TapeWriter) => void;
}

/** What an encoder of one op sees. */
export class StepEncoder {
  readonly plan: Plan;
  readonly index: number;
  readonly step: PlanStep;
  readonly placement: Placement;
  readonly tape: TapeWriter;
  /** Bytes of step scratch used so far. */
  scratchBytes = 0;

  constructor(plan: Plan, index: number, placement: Placement, tape: TapeWriter) {
    this.plan = plan;
    this.index = index;
    this.step = plan.steps[index];
    this.placement = placement;
    this.tape = tape;
  }

  /** Adds a tape step with this op's opcode, or another. */
  emit(parameters: readonly Word[], opcode: number = OP_TABLE[this.step.op].opcode): void {
    this.tape.step(opcode, this.index, parameters);
  }

  /** The output's view. */
  output(): AddressedView {
    return addressView(this.plan, this.step.output, this.placement.arena);
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
    if (input.kind === "activation") {
      return addressView(this.plan, input, this.placement.arena);
    }
    const { shape, format } = this.plan.weights[input.weight];
    const isFloat = format.kind === "dense" && (shape.length === 1 || format.dtype === "float32");
    if (!isFloat) {
      throw invalid("a float32 operand is needed", this.plan.weights[input.weight].name);
    }
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    return { address: this.placement.weights.unit(input.weight, this.index), shape, strides };
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
  rows(operand: number, rows: number, columns: number): [number, number] {
    if (!this.has(operand)) return [0, 0];
    const matrix = this.matrix(operand);
    if (matrix.columns !== columns || (matrix.rows !== rows && matrix.rows !== 1)) {
      throw invalid("an operand has another shape", { found: matrix, expected: [rows, columns] });
    }
    return [matrix.address, matrix.rows === 1 ? 0 : matrix.stride];
  }

  /** The descriptor of an operand that serves as a weight [rows, columns]. */
  weight(operand: number): { address: number; rows: number; columns: number } {
    const input = this.operand(operand);
    if (input.kind === "weight") {
      const { shape } = this.plan.weights[input.weight];
      const columns = shape.slice(1).reduce((a, b) => a * b, 1);
      const address = this.placement.weights.descriptor(input.weight, this.index);
      return { address, rows: shape[0], columns };
    }
    const matrix = this.matrix(operand);
    return { address: this.placement.matrixDescriptor(matrix), ...pick(matrix) };
  }

  /** A region of step scratch; regions of one step do not overlap. */
  scratch(bytes: number): number {
    const address = this.placement.stepScratch + this.scratchBytes;
    this.scratchBytes += aligned(bytes);
    return address;
  }
}

function pick({ rows, columns }: MatrixView): { rows: number; columns: number } {
  return { rows, columns };
}

type Encoder = (encoder: StepEncoder) => void;

const ENCODERS: { readonly [name in OpName]: Encoder } = {
  copy: encodeCopy,
  unary: encodeUnary,
  binary: encodeBinary,
  reduce: encodeReduce,
  gather: encodeGather,
  matmul: encodeMatmul,
  unpack: encodeUnpack,
  conv2d: encodeConvolution,
  linear: encodeLinear,
  norm: encodeNorm,
  attention: encodeAttention,
  headNormRope: encodeHeadNormRope,
};

/** A tape with the step scratch it needs. */
export interface EncodedPlan {
  readonly tape: TapeWriter;
  readonly stepScratchBytes: number;
}

/** Encodes all steps for a placement. */
export function encodePlan(plan: Plan, placement: Placement): EncodedPlan {
  const tape = new TapeWriter();
  let stepScratchBytes = 0;
  for (let index = 0; index < plan.steps.length; index++) {
    placement.beforeStep?.(index, tape);
    if (!plan.steps[index].output.shape.includes(0)) {
      const encoder = new StepEncoder(plan, index, placement, tape);
      ENCODERS[plan.steps[index].op](encoder);
      stepScratchBytes = Math.max(stepScratchBytes, encoder.scratchBytes);
    }
    placement.afterStep?.(index, tape);
  }
  return { tape, stepScratchBytes };
}

/** The tape's size and step scratch, without any real addresses. */
export function measurePlan(plan: Plan): {
  tapeBytes: number;
  stepScratchBytes: number;
  matrixDescriptors: number;
} {
  let matrixDescriptors = 0;
  const { tape, stepScratchBytes } = encodePlan(plan, {
    arena: 0,
    stepScratch: 0,
    weights: { unit: () => 0, descriptor: () => 0 },
    matrixDescriptor: () => ++matrixDescriptors,
  });
  return { tapeBytes: tape.length * 4, stepScratchBytes, matrixDescriptors };
}

/** Bytes of `count` descriptors. */
export function descriptorBytes(count: number): number {
  return count * DESCRIPTOR_WORDS * 4;
}
