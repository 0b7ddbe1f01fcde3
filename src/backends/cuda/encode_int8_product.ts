/**
 * Products of int8 codes with exact sums in int32: the weight where it lies or a slice of it unpacked, its sums by the
 * library or by a kernel of our own, then scales and the layer's end; kernels-cuda/codes.h.
 */

import type { QuantizedActivations } from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import type { CodeRows } from "./code_places.ts";
import type { CodedWeight } from "./coded_weight.ts";
import type { CudaStep } from "./cuda_step.ts";
import { roundedCodes, writtenCodes } from "./encode_rounding.ts";
import {
  launchLibraryProduct,
  type LibraryProduct,
  libraryWorkspace,
  SUM_COLUMNS,
  sumsInOutput,
} from "./library_product.ts";
import { address, integers, type Parameter, rows } from "./parameters.ts";
import { endFrom, endParameters, type ProductEnd } from "./product_end.ts";
import { sliceRows } from "./slices.ts";
import { tiles } from "./tiles.ts";

/** Columns of sums from the weight's row `first` on, their end, and the sums of those rows' codes. */
interface SumsSlice {
  readonly first: number;
  readonly end: ProductEnd;
  readonly weightSums: number;
}
/** Ends a slice given its sums. */
export type FinishSums = (sums: MatrixView, slice: SumsSlice) => void;

/** A layer over int8 activations: x [m, k] rounded as `mode` says, times an int8 weight [n, k]. */
export function launchInt8Layer(
  step: CudaStep,
  x: MatrixView,
  weight: CodedWeight,
  end: ProductEnd,
  mode: QuantizedActivations,
): void {
  const codes = roundedCodes(step, x, mode);
  const written = sumsInOutput(end) ? writtenCodes(step, end.output) : null;
  const ended = (sums: MatrixView, slice: SumsSlice, keepsFloats = true): Parameter[] => {
    const { rows: count, columns } = slice.end.output;
    return [
      ...[sums.address, codes.scales, codes.zeros, slice.weightSums].map(address),
      ...endParameters(slice.end, keepsFloats),
      ...weight.descriptor,
      ...integers((count * columns) | 0, columns, sums.stride, slice.first),
    ];
  };
  if (!written) {
    launchInt8Slices(step, codes, weight, end, (sums, slice) => {
      const { rows: count, columns } = slice.end.output;
      step.launchElements("end_int8", count * columns, ended(sums, slice));
    });
    return;
  }
  // A row's scale is known when all of its sums are.
  const weightSums = launchInt8Slices(step, codes, weight, end);
  const sums = ended(end.sums, { first: 0, end, weightSums }, written.keepsFloats);
  step.launch("end_int8_codes", [end.output.rows, 1, 1], [...sums, ...written.parameters]);
}

/**
 * The sums of all slices, in turn, each given to `finish`; without it all of them stay in the output. Gives the place of
 * the sums of all rows' codes, 0 where they are not wanted.
 */
export function launchInt8Slices(
  step: CudaStep,
  x: CodeRows,
  weight: CodedWeight,
  end: ProductEnd,
  finish?: FinishSums,
): number {
  const inOutput = sumsInOutput(end);
  const isReady = isReadAsItLies(weight, x);
  const count = isReady && inOutput ? weight.rows : sliceRows(weight, 1);
  const slice = isReady ? 0 : step.scratch(padded(count) * x.stride);
  const weightSums = x.zeros === 0 ? 0 : step.scratch(4 * (weight.rows + SUM_COLUMNS));
  const sumBytes = 4 * x.rows * padded(count);
  const workspace = libraryWorkspace(step, sumBytes);
  const place = inOutput ? null : step.scratch(sumBytes);
  for (let first = 0; first < weight.rows; first += count) {
    const left = Math.min(count, weight.rows - first);
    const columns = padded(left);
    const sliceSums = weightSums && weightSums + 4 * first;
    if (slice !== 0 || sliceSums !== 0) {
      step.launch("unpack_int8", [columns, 1, 1], [
        ...[slice, sliceSums].map(address),
        ...weight.descriptor,
        ...integers(first, left, x.stride, 0),
      ]);
    }
    const part = endFrom(end, first, left);
    const sums = place === null
      ? part.sums
      : { address: place, rows: x.rows, columns, stride: columns };
    const type = "int8";
    const codes = isReady ? weight.coded.codes + first * x.stride : slice;
    launchSums(step, {
      x: { ...x, columns: x.stride, type },
      weight: { address: codes, rows: columns, columns: x.stride, stride: x.stride, type },
      output: sums,
      workspace,
    });
    finish?.(sums, { first, end: part, weightSums: sliceSums });
  }
  return weightSums;
}

/** Whether the library can read the weight's codes where they are stored. */
function isReadAsItLies({ rows, columns, coded }: CodedWeight, x: CodeRows): boolean {
  return coded.isSigned && columns === x.stride && rows % SUM_COLUMNS === 0;
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
