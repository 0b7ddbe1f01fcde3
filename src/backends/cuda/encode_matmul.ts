/** Encodes matmul: by cuBLASLt where operands lie in rows or columns, by a kernel of our own where they do not. */

import { batchedView } from "../common_axes.ts";
import { type AddressedView, invalid } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import { libraryWorkspace } from "./library_product.ts";
import { alignmentOf, type MatmulProblem } from "./matmul_problem.ts";
import { address, float, integers } from "./parameters.ts";
import { tiles } from "./tiles.ts";

/** matmul: address and strides[3] of a, b and output, m, n, k, scale; a batch is a layer of blocks. */
export function encodeMatmul(step: CudaStep): void {
  if (step.step.op !== "matmul") return;
  const { scale } = step.step.attributes;
  const [a, b, output] = [step.view(0), step.view(1), step.output()].map(batchedView) as [
    AddressedView,
    AddressedView,
    AddressedView,
  ];
  const [batch, m, n] = output.shape as [number, number, number];
  const k = a.shape[2]!;
  if ([a.shape, b.shape].join() !== [[batch, m, k], [batch, n, k]].join()) {
    throw invalid("matmul shapes differ", { a: a.shape, b: b.shape, output: output.shape });
  }
  if (multiplyByLibrary(step, a, b, output, scale)) return;
  step.launch("matmul", tiles(m, n, batch), [
    ...[a, b, output].flatMap((view) => [
      address(view.address),
      ...integers(...view.strides, 0),
    ]),
    ...integers(m, n, k),
    float(scale),
  ]);
}

/** In float32, or TF32 where the precision is a lower one. False where the library does not do it. */
function multiplyByLibrary(
  step: CudaStep,
  a: AddressedView,
  b: AddressedView,
  output: AddressedView,
  scale: number,
): boolean {
  const [count, m, n] = output.shape as [number, number, number];
  const k = a.shape[2]!;
  const workspace = libraryWorkspace(step, 4 * count * m * n);
  const [x, weight, y] = [a, b, output].map(linesOf);
  if (k === 0 || !x || !weight || !y || y.byColumns) return false;
  const problem: MatmulProblem = {
    m,
    n,
    k,
    operands: "float32",
    scaling: "none",
    tensorFloat32: step.products.precision !== "float32",
    xStride: x.stride,
    weightStride: weight.stride,
    xByColumns: x.byColumns,
    weightByColumns: weight.byColumns,
    outputStride: y.stride,
    addedStride: 0,
    factor: scale,
    batch: { count, x: x.apart, weight: weight.apart, output: y.apart },
    bias: false,
    activation: "identity",
    alignments: {
      x: x.alignment,
      weight: weight.alignment,
      added: y.alignment,
      output: y.alignment,
    },
    workspaceBytes: workspace.bytes,
  };
  const places = { x: a.address, weight: b.address, output: output.address };
  const absent = { added: 0, bias: 0, xScales: 0, weightScales: 0 };
  return step.launchMatmul(problem, { ...places, ...absent, workspace: workspace.address });
}

/** How matrices [batch, rows, columns] lie. */
interface Lines {
  readonly byColumns: boolean;
  /** From a row, or a column, to the next. */
  readonly stride: number;
  /** From a matrix to the next. */
  readonly apart: number;
  readonly alignment: number;
}

/** Null where neither rows nor columns lie close together, or where they lie over each other. */
function linesOf({ address: place, shape, strides }: AddressedView): Lines | null {
  const [count, rows, columns] = shape as [number, number, number];
  const [batchStride, rowStride, columnStride] = strides as [number, number, number];
  const line = (byColumns: boolean, length: number, lines: number, step: number, next: number) => {
    const stride = lines === 1 ? Math.max(next, length) : next;
    if ((length > 1 && step !== 1) || stride < length) return null;
    const apart = count === 1 ? 0 : batchStride;
    const alignment = Math.min(alignmentOf(place), alignmentOf(4 * apart));
    return { byColumns, stride, apart, alignment };
  };
  return line(false, columns, rows, columnStride, rowStride) ??
    line(true, rows, columns, rowStride, columnStride);
}
