/** Encodes a plan as a tape: each step becomes the parameter words of one or more kernels. */

import type { Plan } from "../../plan/plan.ts";
import { OP_TABLE, type OpName } from "../../ops/op_table.ts";
import { DESCRIPTOR_WORDS } from "./weight_layout.ts";
import { encodeBinary, encodeCopy, encodeMatmul } from "./encode_strided.ts";
import { encodeConvolution } from "./encode_convolution.ts";
import { encodeLinear } from "./encode_linear.ts";
import { encodeAttention, encodeHeadNormRope, encodeNorm } from "./encode_fused.ts";
import { encodeGather, encodeReduce, encodeUnary, encodeUnpack } from "./encode_rows.ts";
import type { MatrixView } from "../operand_view.ts";
import { StepOperands, type UnitPlaces, weightMatrix } from "../step_operands.ts";
import { RowSharing, type SharedRows } from "./rounded_rows.ts";
import { TapeWriter, type Word } from "./tape_writer.ts";

/** Where the weights of a step lie. */
export interface WeightPlaces extends UnitPlaces {
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
export class StepEncoder extends StepOperands {
  readonly placement: Placement;
  readonly tape: TapeWriter;
  /** The rounded rows that the step multiplies. */
  readonly rounded: SharedRows | undefined;

  constructor(
    plan: Plan,
    index: number,
    placement: Placement,
    tape: TapeWriter,
    sharing: RowSharing,
  ) {
    super(plan, index, placement.arena, placement.stepScratch, placement.weights);
    this.placement = placement;
    this.tape = tape;
    this.rounded = sharing.readBy(index);
    this.scratchBytes = sharing.bytesDuring(index);
  }

  /** Adds a tape step with this op's opcode, or another. */
  emit(parameters: readonly Word[], opcode: number = OP_TABLE[this.step.op].opcode): void {
    this.tape.step(opcode, this.index, parameters);
  }

  /** The descriptor of an operand that serves as a weight [rows, columns]. */
  weight(operand: number): { address: number; rows: number; columns: number } {
    const input = this.operand(operand);
    if (input.kind === "weight") {
      const address = this.placement.weights.descriptor(input.weight, this.index);
      return { address, ...weightMatrix(this.plan.weights[input.weight]) };
    }
    const matrix = this.matrix(operand);
    return {
      address: this.placement.matrixDescriptor(matrix),
      rows: matrix.rows,
      columns: matrix.columns,
    };
  }
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
  const sharing = new RowSharing(plan);
  let stepScratchBytes = 0;
  for (let index = 0; index < plan.steps.length; index++) {
    placement.beforeStep?.(index, tape);
    if (!plan.steps[index].output.shape.includes(0)) {
      const encoder = new StepEncoder(plan, index, placement, tape, sharing);
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
