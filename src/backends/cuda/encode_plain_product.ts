/** A product of two plain matrices: by the library where it can, by a kernel of our own where it cannot. */

import type { MatrixView } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { MatmulPrecision, OperandType } from "./matmul_precision.ts";
import {
  alignmentOf,
  type LibraryActivation,
  type MatmulAddresses,
  type MatmulProblem,
} from "./matmul_problem.ts";
import { integers, rows } from "./parameters.ts";
import { endParameters, type ProductEnd } from "./product_end.ts";
import { tiles } from "./tiles.ts";

/** What NVIDIA advises for the largest devices; small products get less, a few copies of their sums. */
const WORKSPACE_BYTES = 32 * 1024 * 1024;
const WORKSPACE_COPIES = 8;

/** A matrix of numbers as they are, rows close together or apart. */
export interface PlainRows extends MatrixView {
  readonly type: OperandType;
}

/** Step scratch of a library's products, which slices of one step share. */
interface ProductScratch {
  readonly workspace: number;
  readonly workspaceBytes: number;
  /** Float32 sums [rows, columns] where the output cannot hold them; 0 where it can. */
  readonly sums: number;
}

/** Scratch for products [count, columns]; the same whatever the library can do, so that plans know it. */
export function productScratch(
  step: CudaStep,
  end: ProductEnd,
  [count, columns]: readonly [rows: number, columns: number],
): ProductScratch {
  if (step.products.library === null) return { workspace: 0, workspaceBytes: 0, sums: 0 };
  const sumBytes = 4 * count * columns;
  const workspaceBytes = Math.min(WORKSPACE_BYTES, WORKSPACE_COPIES * sumBytes);
  return {
    workspace: step.scratch(workspaceBytes),
    workspaceBytes,
    // The output may lie where the residual does.
    sums: end.residual[0] === 0 ? 0 : step.scratch(sumBytes),
  };
}

/** x [m, k] times weight [n, k], both of one type, to the end's output [m, n]. */
export function launchProduct(
  step: CudaStep,
  x: PlainRows,
  weight: PlainRows,
  end: ProductEnd,
  precision: MatmulPrecision,
  scratch: ProductScratch,
): void {
  const operands = { x, weight, precision, scratch };
  if (launchWithEnd(step, operands, end) || launchThenEnd(step, operands, end)) return;
  step.launch(`linear_${x.type}`, tiles(x.rows, weight.rows), [
    ...rows([x.address, x.stride]),
    ...rows([weight.address, weight.stride]),
    ...endParameters(end),
    ...integers(x.rows, weight.rows, x.columns, 0),
  ]);
}

interface ProductOperands {
  readonly x: PlainRows;
  readonly weight: PlainRows;
  readonly precision: MatmulPrecision;
  readonly scratch: ProductScratch;
}

/** The whole product and its end by the library; false where it cannot. */
function launchWithEnd(step: CudaStep, operands: ProductOperands, end: ProductEnd): boolean {
  const { output, activation, gate, residual, bias } = end;
  const adds = residual[0] !== 0;
  // What is added comes before the activation there, and after it here.
  const fits = gate[0] === 0 &&
    (adds ? activation === "identity" && residual[1] >= output.columns : isLibrarys(activation));
  if (!fits || !isLibrarys(activation)) return false;
  return launchLibrary(step, operands, output, { bias, activation, added: residual });
}

/** The sums by the library, the end by our own kernel; false where the library cannot. */
function launchThenEnd(step: CudaStep, operands: ProductOperands, end: ProductEnd): boolean {
  const { sums } = operands.scratch;
  const { output } = end;
  const place = sums === 0 ? output : { ...output, address: sums, stride: output.columns };
  const plain = { bias: 0, activation: "identity", added: [0, 0] } as const;
  if (!launchLibrary(step, operands, place, plain)) return false;
  const count = output.rows * output.columns;
  step.launchElements("end_product", count, [
    ...rows([place.address, place.stride]),
    ...endParameters(end),
    ...integers(count | 0, output.columns),
  ]);
  return true;
}

interface LibraryEnd {
  readonly bias: number;
  readonly activation: LibraryActivation;
  readonly added: readonly [address: number, stride: number];
}

function launchLibrary(
  step: CudaStep,
  { x, weight, precision, scratch }: ProductOperands,
  output: MatrixView,
  { bias, activation, added: [added, addedStride] }: LibraryEnd,
): boolean {
  const { workspace, workspaceBytes } = scratch;
  const addresses: MatmulAddresses = {
    x: x.address,
    weight: weight.address,
    added,
    bias,
    output: output.address,
    workspace,
  };
  const strides = {
    xStride: rowStride(x),
    weightStride: rowStride(weight),
    outputStride: rowStride(output),
  };
  if (strides.xStride < x.columns) return false; // a row that repeats
  const problem: MatmulProblem = {
    m: x.rows,
    n: weight.rows,
    k: x.columns,
    operands: x.type,
    tensorFloat32: precision === "tensorfloat32",
    ...strides,
    addedStride: added === 0 ? 0 : addedStride,
    bias: bias !== 0,
    activation,
    alignments: alignmentsOf(addresses),
    workspaceBytes,
  };
  return step.launchMatmul(problem, addresses);
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

function isLibrarys(activation: string): activation is LibraryActivation {
  return activation === "identity" || activation === "relu" || activation === "gelu_tanh";
}
