/** A product as a library is asked for it, apart from the addresses. */

import type { OperandType } from "./matmul_precision.ts";
import type { NarrowType } from "./plain_rows.ts";

/** The types of a library's operands: int8 gives sums in int32, the others in float32. */
export type ProductType = OperandType | "int8" | "float8_e4m3fn";

/** What float8 operands are multiplied by: nothing, one number each, or one number for each row of each. */
export type ProductScaling = "none" | "tensor" | "rows";

/** What a library can do at a product's end. */
export type LibraryActivation = "identity" | "relu" | "gelu_tanh";

/** Products that are alike: how many, and how far apart their parts lie, in elements; 0 repeats a matrix. */
export interface MatmulBatch {
  readonly count: number;
  readonly x: number;
  readonly weight: number;
  readonly output: number;
}

/**
 * output [m, n] = activation(factor · x [m, k] · weight [n, k]ᵀ + added [m, n] + bias [n]), all row-major unless said; `added`
 * and `bias` may be absent. Sums, added, bias and output are float32; of int8 operands sums and output are int32,
 * and nothing else is there. `results` may be of 16 bits as the operands are; the bias is then too, and nothing is added.
 * Of float8 operands the bias is bfloat16 whatever results are. Strides are of rows, in elements.
 */
export interface MatmulProblem {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly operands: ProductType;
  readonly scaling: ProductScaling;
  /** Whether float32 operands may be rounded to TF32. */
  readonly tensorFloat32: boolean;
  readonly xStride: number;
  readonly weightStride: number;
  /** Whether x, or the weight, lies column by column; its stride is then of columns. */
  readonly xByColumns?: boolean;
  readonly weightByColumns?: boolean;
  /** What sums are multiplied by; 1 where it is absent. */
  readonly factor?: number;
  /** Absent for a single product. */
  readonly batch?: MatmulBatch;
  readonly outputStride: number;
  /** The type of output and bias, where it is not float32. */
  readonly results?: NarrowType;
  /** 0 where nothing is added. */
  readonly addedStride: number;
  readonly bias: boolean;
  readonly activation: LibraryActivation;
  /** Powers of two that divide the addresses, in bytes. */
  readonly alignments: {
    readonly x: number;
    readonly weight: number;
    readonly added: number;
    readonly output: number;
  };
  readonly workspaceBytes: number;
}

/** Where a product's parts lie; 0 for what it lacks. */
export interface MatmulAddresses {
  readonly x: number;
  readonly weight: number;
  readonly added: number;
  readonly bias: number;
  /** Float32, as the problem's scaling says. */
  readonly xScales: number;
  readonly weightScales: number;
  readonly output: number;
  readonly workspace: number;
}

/** A product made ready, to be launched any number of times. */
export interface PreparedMatmul {
  readonly problem: MatmulProblem;
  /** Whether it ran before; the first run may load code, which no capture should meet. */
  isWarm: boolean;
}

/** What chooses how to compute products. */
export interface MatmulLibrary {
  /** Whether the device has units for float8. */
  readonly multipliesFloat8: boolean;
  /** The product made ready for places like these, or null where the library cannot do it. */
  prepare(problem: MatmulProblem, addresses: MatmulAddresses): PreparedMatmul | null;
}

/** The library asks about alignment up to here. */
const LARGEST_ALIGNMENT = 256;

/** The largest power of two up to 256 that divides an address. */
export function alignmentOf(address: number): number {
  let alignment = 1;
  while (alignment < LARGEST_ALIGNMENT && address % (2 * alignment) === 0) alignment *= 2;
  return alignment;
}
