/** A product of two plain matrices: by the library where it can, by a kernel of our own where it cannot. */

import type { MatrixView } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { MatmulPrecision } from "./matmul_precision.ts";
import {
  launchLibraryProduct,
  type LibraryProduct,
  libraryWorkspace,
  type Workspace,
} from "./library_product.ts";
import type { LibraryActivation } from "./matmul_problem.ts";
import { integers, rows } from "./parameters.ts";
import { launchEnd, type PlainRows } from "./plain_rows.ts";
import { endParameters, type ProductEnd } from "./product_end.ts";
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
  if (!launchLibrary(step, operands, place)) return false;
  launchEnd(step, { ...place, type: "float32" }, end);
  return true;
}

function launchLibrary(
  step: CudaStep,
  { x, weight, precision, scratch }: ProductOperands,
  output: MatrixView,
  end?: LibraryProduct["end"],
): boolean {
  const { workspace } = scratch;
  const tensorFloat32 = precision === "tensorfloat32";
  return launchLibraryProduct(step, { x, weight, output, workspace, tensorFloat32, end });
}

function isLibrarys(activation: string): activation is LibraryActivation {
  return activation === "identity" || activation === "relu" || activation === "gelu_tanh";
}
