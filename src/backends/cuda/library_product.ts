/** Asks the library for a product of operands that lie somewhere. */

import type { MatrixView } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { OperandType } from "./matmul_precision.ts";
import {
  alignmentOf,
  type LibraryActivation,
  type MatmulAddresses,
  type MatmulProblem,
  type ProductScaling,
  type ProductType,
} from "./matmul_problem.ts";
import type { ProductEnd } from "./product_end.ts";

/** Most workspace a library gets: what NVIDIA advises for the largest devices. */
const WORKSPACE_BYTES = 32 * 1024 * 1024;
/** Small results get less: a few copies of their sums, and what even the smallest may ask for. */
const WORKSPACE_COPIES = 8;
const LEAST_WORKSPACE_BYTES = 64 * 1024;

/** Step scratch that is the library's own. */
export interface Workspace {
  readonly address: number;
  readonly bytes: number;
}

/** A matrix of numbers or codes as they are, rows close together or apart. */
export interface ProductRows extends MatrixView {
  readonly type: ProductType;
}

/** x [m, k] times weight [n, k], to output [m, n]; addresses of 0 are of what is absent. */
export interface LibraryProduct {
  readonly x: ProductRows;
  readonly weight: ProductRows;
  /** Of float32, or of int32 over int8, unless it says otherwise. */
  readonly output: MatrixView & { readonly type?: OperandType };
  readonly workspace: Workspace;
  /** Whether float32 operands may be rounded to TF32. */
  readonly tensorFloat32?: boolean;
  readonly scales?: {
    readonly scaling: ProductScaling;
    readonly x: number;
    readonly weight: number;
  };
  readonly end?: {
    readonly bias: number;
    readonly activation: LibraryActivation;
    readonly added: readonly [address: number, stride: number];
  };
  /** Puts into the step what must be there first, where the library does it. */
  readonly before?: () => void;
}

/** Workspace of a library for a result whose float32 sums take so many bytes. */
export function workspaceBytes(sumBytes: number): number {
  return Math.max(LEAST_WORKSPACE_BYTES, Math.min(WORKSPACE_BYTES, WORKSPACE_COPIES * sumBytes));
}

/** Scratch for products whose sums take so many bytes; the same whatever the library can do. */
export function libraryWorkspace(step: CudaStep, sumBytes: number): Workspace {
  if (step.products.library === null) return { address: 0, bytes: 0 };
  const bytes = workspaceBytes(sumBytes);
  return { address: step.scratch(bytes), bytes };
}

/** What tensor cores want of sums of 4 bytes: rows and their addresses on 16 bytes, columns in these. */
export const SUM_COLUMNS = 16;
const SUM_STRIDE = 4;
const SUM_ALIGNMENT = 16;

/** Whether sums of codes can go to a place. */
export function holdsSums({ address, columns, stride }: MatrixView): boolean {
  return columns % SUM_COLUMNS === 0 && stride % SUM_STRIDE === 0 && address % SUM_ALIGNMENT === 0;
}

/** Whether a layer's sums may lie in its output; not where that may be its residual as well. */
export function sumsInOutput({ sums, residual }: ProductEnd): boolean {
  return residual[0] === 0 && holdsSums(sums);
}

const NO_SCALES = { scaling: "none", x: 0, weight: 0 } as const;
const NO_END = { bias: 0, activation: "identity", added: [0, 0] } as const;

/** Puts the product into the step; false where there is no library or it cannot do this one. */
export function launchLibraryProduct(step: CudaStep, product: LibraryProduct): boolean {
  const { x, weight, output, workspace, scales = NO_SCALES, end = NO_END } = product;
  const [added, addedStride] = end.added;
  const addresses: MatmulAddresses = {
    x: x.address,
    weight: weight.address,
    added,
    bias: end.bias,
    xScales: scales.x,
    weightScales: scales.weight,
    output: output.address,
    workspace: workspace.address,
  };
  const xStride = rowStride(x);
  if (xStride < x.columns) return false; // a row that repeats
  const problem: MatmulProblem = {
    m: x.rows,
    n: weight.rows,
    k: x.columns,
    operands: x.type,
    scaling: scales.scaling,
    tensorFloat32: product.tensorFloat32 ?? false,
    xStride,
    weightStride: rowStride(weight),
    outputStride: rowStride(output),
    ...(output.type !== undefined && output.type !== "float32" && { results: output.type }),
    addedStride: added === 0 ? 0 : addedStride,
    bias: end.bias !== 0,
    activation: end.activation,
    alignments: alignmentsOf(addresses),
    workspaceBytes: workspace.bytes,
  };
  return step.launchMatmul(problem, addresses, product.before);
}

/** The stride of a single row is any: rows [1, n] may come with that of what they are part of, or 0. */
function rowStride({ rows, columns, stride }: MatrixView): number {
  return rows === 1 ? Math.max(stride, columns) : stride;
}

function alignmentsOf({ x, weight, added, output }: MatmulAddresses): MatmulProblem["alignments"] {
  return {
    x: alignmentOf(x),
    weight: alignmentOf(weight),
    added: alignmentOf(added || output),
    output: alignmentOf(output),
  };
}
