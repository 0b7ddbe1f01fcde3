/** Encoders of norm and headNormRope. */

import { NORM_KINDS, UNARY_KINDS } from "../../ops/op_table.ts";
import { invalid } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import { writtenCodes } from "./encode_rounding.ts";
import { address, float, integers } from "./parameters.ts";
import { floatRows, type NarrowType } from "./plain_rows.ts";

/** Numbers of a chunk of rows whose moments group norm joins: few enough to be in a cache when they are read again. */
const CHUNK_NUMBERS = 32768;
const LEAST_CHUNK_ROWS = 16;
const HEADS_PER_BLOCK = 8;

/** norm: a block a row; group norm in three launches: moments of chunks, then of groups, then a chunk a block. */
export function encodeNorm(step: CudaStep): void {
  if (step.step.op !== "norm") return;
  const { kind, epsilon, groups, activation } = step.step.attributes;
  const output = step.outputMatrix();
  const { rows: count, columns } = output;
  const isGroup = kind === "group";
  if (isGroup && columns % groups !== 0) throw invalid("groups do not divide", { columns, groups });
  const chunkRows = Math.max(Math.floor(CHUNK_NUMBERS / columns), LEAST_CHUNK_ROWS);
  const chunks = Math.ceil(count / chunkRows);
  const codes = isGroup ? null : writtenCodes(step, output);
  const narrow = isGroup ? undefined : step.rounded.rowsWritten(step.index);
  const keepsFloats = (codes ?? narrow)?.keepsFloats ?? true;
  const parameters = [
    ...step.rowOperand(0, count, columns),
    address(keepsFloats ? output.address : 0),
    address(step.vector(1, columns)),
    address(step.vector(2, columns)),
    ...step.rowOperand(3, count, columns),
    ...step.rowOperand(4, count, columns),
    address(isGroup ? step.scratch((chunks + 1) * groups * 8) : 0),
    ...integers(count, columns, output.stride, NORM_KINDS.indexOf(kind), groups),
    float(epsilon),
    ...integers(UNARY_KINDS.indexOf(activation), chunkRows, chunks, 0),
  ];
  if (codes) {
    return step.launch("row_norm_codes", [count, 1, 1], [...parameters, ...codes.parameters]);
  }
  if (narrow) {
    const place = address(narrow.address);
    return step.launch(`row_norm_${narrow.type as NarrowType}`, [count, 1, 1], [
      ...parameters,
      place,
    ]);
  }
  if (!isGroup) return step.launch("row_norm", [count, 1, 1], parameters);
  step.launch("group_moments", [chunks, 1, 1], parameters);
  step.launch("group_join", [groups, 1, 1], parameters);
  step.launch("group_norm", [chunks, 1, 1], parameters);
}

/** headNormRope: x, output, weight, cos, sin, rows, heads, head size, output stride, epsilon; a warp a head. */
export function encodeHeadNormRope(step: CudaStep): void {
  if (step.step.op !== "headNormRope") return;
  const { heads, epsilon } = step.step.attributes;
  const output = step.outputMatrix();
  const size = output.columns / heads;
  const rotates = step.has(2);
  if (!Number.isInteger(size) || rotates && size % 2 !== 0) {
    throw invalid("heads do not divide", { output, heads });
  }
  const blocks = Math.ceil(output.rows * heads / HEADS_PER_BLOCK);
  const { type, address: place, stride } = step.rounded.rowsWritten(step.index) ??
    floatRows(output);
  const kernel = type === "float32" ? "head_norm_rope" as const : `head_norm_rope_${type}` as const;
  step.launch(kernel, [blocks, 1, 1], [
    ...step.rowOperand(0, output.rows, output.columns),
    address(place),
    address(step.vector(1, size)),
    ...step.rowOperand(2, output.rows, size),
    ...step.rowOperand(3, output.rows, size),
    ...integers(output.rows, heads, size, stride),
    float(epsilon),
    ...integers(0),
  ]);
}
