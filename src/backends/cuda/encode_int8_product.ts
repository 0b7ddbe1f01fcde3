/**
 * Products of int8 codes with exact sums in int32: a slice of the weight unpacked to int8, its sums by the library
 * or by a kernel of our own, then scales and the layer's end; kernels-cuda/codes.h.
 */

import type { QuantizedActivations } from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import type { CodedWeight } from "./coded_weight.ts";
import type { CudaStep, EncodedWeight } from "./cuda_step.ts";
import { type CodeRows, roundedCodes } from "./encode_rounding.ts";
import {
  launchLibraryProduct,
  type LibraryProduct,
  libraryWorkspace,
  SUM_COLUMNS,
  sumsInOutput,
} from "./library_product.ts";
import { address, integers, rows } from "./parameters.ts";
import { endFrom, endParameters, type ProductEnd } from "./product_end.ts";
import { sliceRows } from "./slices.ts";
import { tiles } from "./tiles.ts";

/** Ends the columns of a slice of the weight's rows from `first` on, given their sums. */
export type FinishSums = (
  sums: MatrixView,
  slice: { readonly first: number; readonly end: ProductEnd; readonly weightSums: number },
) => void;

/** A layer over int8 activations: x [m, k] rounded as `mode` says, times an int8 weight [n, k]. */
export function launchInt8Layer(
  step: CudaStep,
  x: MatrixView,
  weight: CodedWeight,
  end: ProductEnd,
  mode: QuantizedActivations,
): void {
  const codes = roundedCodes(step, x, mode);
  launchInt8Slices(step, codes, weight, end, (sums, slice) => {
    const { rows: count, columns } = slice.end.output;
    step.launchElements("end_int8", count * columns, [
      ...[sums.address, codes.scales, codes.zeros, slice.weightSums].map(address),
      ...endParameters(slice.end),
      ...weight.descriptor,
      ...integers((count * columns) | 0, columns, sums.stride, slice.first),
    ]);
  });
}

/** The sums of all slices, in turn, each given to `finish`. */
export function launchInt8Slices(
  step: CudaStep,
  x: CodeRows,
  weight: EncodedWeight,
  end: ProductEnd,
  finish: FinishSums,
): void {
  const count = sliceRows(weight, 1);
  const slice = step.scratch(padded(count) * x.stride);
  const weightSums = x.zeros === 0 ? 0 : step.scratch(4 * padded(count));
  const sumBytes = 4 * x.rows * padded(count);
  const workspace = libraryWorkspace(step, sumBytes);
  const place = sumsInOutput(end) ? null : step.scratch(sumBytes);
  for (let first = 0; first < weight.rows; first += count) {
    const left = Math.min(count, weight.rows - first);
    const columns = padded(left);
    step.launch("unpack_int8", [columns, 1, 1], [
      ...[slice, weightSums].map(address),
      ...weight.descriptor,
      ...integers(first, left, x.stride, 0),
    ]);
    const part = endFrom(end, first, left);
    const sums = place === null
      ? part.output
      : { address: place, rows: x.rows, columns, stride: columns };
    const type = "int8";
    launchSums(step, {
      x: { ...x, columns: x.stride, type },
      weight: { address: slice, rows: columns, columns: x.stride, stride: x.stride, type },
      output: sums,
      workspace,
    });
    finish(sums, { first, end: part, weightSums });
  }
}

/** Sums of codes as they are. */
function launchSums(step: CudaStep, product: LibraryProduct): void {
  if (launchLibraryProduct(step, product)) return;
  const { x, weight, output } = product;
  step.launch("linear_int8", tiles(x.rows, weight.rows), [
    ...rows([x.address, x.stride]),
    ...rows([weight.address, weight.stride]),
    address(output.address),
    ...integers(x.rows, weight.rows, x.columns, output.stride),
  ]);
}

/** Rows of a slice are padded to what the library wants of columns of its sums. */
function padded(count: number): number {
  return Math.ceil(count / SUM_COLUMNS) * SUM_COLUMNS;
}
