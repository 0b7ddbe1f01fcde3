/** Where codes of activations lie, and what comes with them. */

import {
  type ActivationMode,
  LLM_INT8_ROWS,
  type QuantizedActivations,
} from "../../ops/activation_mode.ts";

/** How a layer over codes rounds its activations. */
export type CodesMode = Exclude<ActivationMode, { kind: "float" }>;

/** Rows of codes with what they are worth. */
export interface CodeRows {
  readonly address: number;
  readonly rows: number;
  /** Bytes of a row, zeros behind its codes. */
  readonly stride: number;
  /** Float32 [rows]. */
  readonly scales: number;
  /** Float32 [rows], the codes that mean 0; 0 where all of them are 0. */
  readonly zeros: number;
}

/** Codes, and LLM.int8()'s outlier columns: which they are, and how many with a list of them; 0 where there are none. */
export interface CodePlaces extends CodeRows {
  readonly marks: number;
  readonly list: number;
}

/** Tensor cores read rows of codes in these; activations are padded to them with zeros. */
export const CODE_UNIT = 16;

/** Bytes of a row of codes. */
export function codeStride(columns: number): number {
  return Math.ceil(columns / CODE_UNIT) * CODE_UNIT;
}

/** Places for the codes of x [rows, columns], wherever `take` has them. */
export function placeCodes(
  { rows, columns }: { readonly rows: number; readonly columns: number },
  mode: CodesMode,
  take: (bytes: number) => number,
): CodePlaces {
  const isSplit = mode.kind === "llm_int8";
  const stride = codeStride(columns);
  return {
    address: take(rows * stride),
    rows,
    stride,
    scales: take(rows * 4),
    zeros: hasZeros(mode) ? take(rows * 4) : 0,
    marks: isSplit ? take(columns * 4) : 0,
    list: isSplit ? take((columns + 1) * 4) : 0,
  };
}

/** How rows become codes. */
export function roundingOf(mode: CodesMode): QuantizedActivations {
  return mode.kind === "llm_int8" ? LLM_INT8_ROWS : mode;
}

function hasZeros(mode: CodesMode): boolean {
  const { scale } = roundingOf(mode);
  return scale.kind === "static" ? scale.zero !== 0 : scale.mapping === "asymmetric";
}
