/** A product of two plain matrices: by the library where it can, by a kernel of our own where it cannot. */

import type { CudaStep } from "./cuda_step.ts";
import { type MatmulPrecision, OPERAND_BYTES } from "./matmul_precision.ts";
import {
  launchLibraryProduct,
  type LibraryProduct,
  libraryWorkspace,
  type Workspace,
} from "./library_product.ts";
import type { LibraryActivation } from "./matmul_problem.ts";
import { integers, rows } from "./parameters.ts";
import { launchEnd, launchNarrow, type NarrowType, type PlainRows } from "./plain_rows.ts";
import { BIAS, endParameters, type ProductEnd } from "./product_end.ts";
import { tiles } from "./tiles.ts";

/** Step scratch of a library's products, which slices of one step share. */
interface ProductScratch {
  readonly workspace: Workspace;
  /** Float32 sums [rows, columns] where the output cannot hold them; 0 where it can. */
  readonly sums: number;
}

/** Scratch for products [count, columns]; the same whatever the library can do, so that plans know it. */
export function productScratch(
  step: CudaStep,
  end: ProductEnd,
  [count, columns]: readonly [rows: number, columns: number],
): ProductScratch {
  const sumBytes = 4 * count * columns;
  const workspace = libraryWorkspace(step, sumBytes);
  // The output may lie where the residual does.
  const needsSums = step.products.library !== null && end.residual[0] !== 0;
  return { workspace, sums: needsSums ? step.scratch(sumBytes) : 0 };
}

/** A layer's end with a place for its bias in 16 bits, as the library takes it, if nothing of it is lost so. */
export function withNarrowBias(step: CudaStep, end: ProductEnd, type: NarrowType): ProductEnd {
  if (step.products.library === null || !step.has(BIAS)) return end;
  const narrowBias = step.scratch(OPERAND_BYTES[type] * end.output.columns);
  return step.isExactIn(BIAS, type) ? { ...end, narrowBias } : end;
}

/** Puts the bias there. */
export function launchNarrowBias(step: CudaStep, end: ProductEnd, type: NarrowType): void {
  if (end.narrowBias === 0) return;
  const { output: { columns }, bias, narrowBias } = end;
  launchNarrow(step, { address: bias, rows: 1, columns, stride: columns }, narrowBias, type);
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
  const { output, activation, gate, residual } = end;
  const adds = residual[0] !== 0;
  const isNarrow = output.type !== "float32";
  const bias = isNarrow ? end.narrowBias : end.bias;
  if (isNarrow && (adds || bias === 0 && end.bias !== 0)) return false;
  // What is added comes before the activation there, and after it here.
  const fits = gate[0] === 0 &&
    (adds ? activation === "identity" && residual[1] >= output.columns : isLibrarys(activation));
  if (!fits || !isLibrarys(activation)) return false;
  return launchLibrary(step, operands, output, { bias, activation, added: residual });
}

/** The sums by the library, the end by our own kernel; false where the library cannot. */
function launchThenEnd(step: CudaStep, operands: ProductOperands, end: ProductEnd): boolean {
  const { sums } = operands.scratch;
  const place = sums === 0 ? end.sums : { ...end.sums, address: sums, stride: end.sums.columns };
  if (!launchLibrary(step, operands, place)) return false;
  launchEnd(step, { ...place, type: "float32" }, end);
  return true;
}

function launchLibrary(
  step: CudaStep,
  { x, weight, precision, scratch }: ProductOperands,
  output: LibraryProduct["output"],
  end?: LibraryProduct["end"],
): boolean {
  const { workspace } = scratch;
  const tensorFloat32 = precision === "tensorfloat32";
  return launchLibraryProduct(step, { x, weight, output, workspace, tensorFloat32, end });
}

function isLibrarys(activation: string): activation is LibraryActivation {
  return activation === "identity" || activation === "relu" || activation === "gelu_tanh";
}
