/** Encodes the rounding of activations; kernels-cuda/rounding.h. */

import {
  CODE_ROUNDINGS,
  type DynamicScale,
  type QuantizedActivations,
  type StaticScale,
} from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import { KERNEL_DTYPES } from "../weight_unit.ts";
import {
  type CodePlaces,
  type CodesMode,
  codeStride,
  placeCodes,
  roundingOf,
} from "./code_places.ts";
import type { CudaStep } from "./cuda_step.ts";
import { address, float, integer, integers, type Parameter, rows } from "./parameters.ts";

/** How the kernels call int8 among the types of codes. */
const INT8 = -1;

/** What rounded rows become; addresses are 0 for what is not wanted. */
interface RoundedRows {
  readonly rows: number;
  readonly columns: number;
  readonly scales: number;
  /** Float32 [rows], the codes that mean 0. */
  readonly zeros: number;
  /** Int8 or e4m3 [rows, codeStride]. */
  readonly codes: number;
  /** float32 [rows, columns]. */
  readonly values: number;
  /** LLM.int8()'s columns that are kept apart: where they are marked, and from which magnitude on. */
  readonly marks: number;
  readonly threshold: number;
  /** Float32 [rows, 2], ranges of rows where all of them share a scale. */
  readonly ranges: number;
}

/** x [m, k] rounded as `mode` says and brought back to float32, in step scratch. */
export function roundedValues(
  step: CudaStep,
  x: MatrixView,
  mode: QuantizedActivations,
): MatrixView {
  const values = step.scratch(x.rows * x.columns * 4);
  const scales = step.scratch(x.rows * 4);
  launchRounding(step, x, mode, { ...NOTHING, scales, values });
  return { ...x, address: values, stride: x.columns };
}

const NOTHING = { scales: 0, zeros: 0, codes: 0, values: 0, marks: 0, threshold: 0 } as const;

/**
 * x [m, k] as the codes that the step multiplies: those that it shares with other steps, which are there already or made
 * now, or its own in step scratch. `split` first finds the columns that LLM.int8() keeps apart.
 */
export function roundedCodes(
  step: CudaStep,
  x: MatrixView,
  mode: CodesMode,
  split?: (places: CodePlaces) => void,
): CodePlaces {
  const shared = step.rounded.sharedBy(step.index);
  const places = shared
    ? step.rounded.placesOf(shared)
    : placeCodes(x, mode, (bytes) => step.scratch(bytes));
  if (shared?.isMade) return places;
  if (shared) shared.isMade = true;
  split?.(places);
  const threshold = mode.kind === "llm_int8" ? mode.threshold : 0;
  launchRounding(step, x, roundingOf(mode), { ...codesIn(places), threshold });
  return places;
}

function codesIn({ address, scales, zeros, marks }: CodePlaces) {
  return { ...NOTHING, codes: address, scales, zeros, marks };
}

/** Codes that the step's output becomes, by the kernel that makes it. */
export interface CodesWritten {
  /** The struct `Rounding`. */
  readonly parameters: readonly Parameter[];
  /** Whether the output is wanted too. */
  readonly keepsFloats: boolean;
}

/** The codes that a step's output [m, k] becomes, which it promises to write; null where others make them. */
export function writtenCodes(step: CudaStep, output: MatrixView): CodesWritten | null {
  const shared = step.rounded.codesWrittenBy(step.index);
  const mode = shared?.roundsByRow;
  if (!shared || !mode) return null;
  shared.isMade = true;
  const rounded = { ...output, ...codesIn(step.rounded.placesOf(shared)), ranges: 0 };
  return { parameters: roundingParameters(rounded, mode), keepsFloats: shared.keepsFloats };
}

/** x and its rounding: a block a row. */
function launchRounding(
  step: CudaStep,
  x: MatrixView,
  mode: QuantizedActivations,
  rounded: Omit<RoundedRows, "rows" | "columns" | "ranges">,
): void {
  const isShared = mode.granularity === "tensor" && mode.scale.kind === "dynamic";
  const ranges = isShared ? step.scratch(x.rows * 8) : 0;
  const { rows: count, columns } = x;
  const parameters = [
    ...rows([x.address, x.stride]),
    ...roundingParameters({ ...rounded, rows: count, columns, ranges }, mode),
  ];
  if (isShared) step.launch("round_ranges", [count, 1, 1], parameters);
  step.launch("round_rows", [count, 1, 1], parameters);
}

/** The struct `Rounding`: marks, ranges, scales, zeros, values, codes, sizes, rule. */
function roundingParameters(rounded: RoundedRows, mode: QuantizedActivations): Parameter[] {
  const { marks, ranges, scales, zeros, values, codes, threshold } = rounded;
  return [
    ...[marks, ranges, scales, zeros, values, codes].map(address),
    ...integers(rounded.rows, rounded.columns, codeStride(rounded.columns)),
    integer(mode.dtype === "int8" ? INT8 : KERNEL_DTYPES.indexOf(mode.dtype)),
    ...scaleWords(mode.scale),
    ...[mode.lowest, mode.highest, threshold].map(float),
    integer(0),
  ];
}

/** static, asymmetric, rounding, levels, least, scale, inverse, zero. */
function scaleWords(scale: DynamicScale | StaticScale): Parameter[] {
  if (scale.kind === "static") {
    const { scale: step, inverse, zero } = scale;
    return [...integers(1, 0, 0), ...[1, 0, step, inverse, zero].map(float)];
  }
  const { mapping, rounding, levels, least } = scale;
  const kinds = integers(0, mapping === "asymmetric" ? 1 : 0, CODE_ROUNDINGS.indexOf(rounding));
  return [...kinds, ...[levels, least, 0, 0, 0].map(float)];
}
