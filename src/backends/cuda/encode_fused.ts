/** Encoders of norm and headNormRope. */

import { NORM_KINDS, UNARY_KINDS } from "../../ops/op_table.ts";
import { invalid, type MatrixView } from "../operand_view.ts";
import type { CudaStep } from "./cuda_step.ts";
import { writtenCodes } from "./encode_rounding.ts";
import type { KernelName } from "./kernel_names.ts";
import { OPERAND_BYTES } from "./matmul_precision.ts";
import { address, float, integers } from "./parameters.ts";
import type { NarrowType } from "./plain_rows.ts";

/** Chunks of rows whose moments group norm joins: enough to share, few enough to join. */
const GROUP_CHUNKS = 64;
const LEAST_CHUNK_ROWS = 16;
const HEADS_PER_BLOCK = 8;

/** norm: a block a row; group norm in two launches, moments of chunks first. */
export function encodeNorm(step: CudaStep): void {
  if (step.step.op !== "norm") return;
  const { kind, epsilon, groups, activation } = step.step.attributes;
  const output = step.outputMatrix();
  const { rows: count, columns } = output;
  const isGroup = kind === "group";
  if (isGroup && columns % groups !== 0) throw invalid("groups do not divide", { columns, groups });
  const chunkRows = Math.max(Math.ceil(count / GROUP_CHUNKS), LEAST_CHUNK_ROWS);
  const chunks = Math.ceil(count / chunkRows);
  const codes = isGroup ? null : writtenCodes(step, output);
  const narrow = isGroup ? null : writtenNarrow(step);
  const keepsFloats = (codes ?? narrow)?.keepsFloats ?? true;
  const parameters = [
    ...step.rowOperand(0, count, columns),
    address(keepsFloats ? output.address : 0),
    address(step.vector(1, columns)),
    address(step.vector(2, columns)),
    ...step.rowOperand(3, count, columns),
    ...step.rowOperand(4, count, columns),
    address(isGroup ? step.scratch(chunks * groups * 8) : 0),
    ...integers(count, columns, output.stride, NORM_KINDS.indexOf(kind), groups),
    float(epsilon),
    ...integers(UNARY_KINDS.indexOf(activation), chunkRows, chunks, 0),
  ];
  if (codes) {
    return step.launch("row_norm_codes", [count, 1, 1], [...parameters, ...codes.parameters]);
  }
  if (narrow) {
    const place = address(narrow.address);
    return step.launch(`row_norm_${narrow.type}`, [count, 1, 1], [...parameters, place]);
  }
  if (!isGroup) return step.launch("row_norm", [count, 1, 1], parameters);
  step.launch("group_moments", [chunks, groups, 1], parameters);
  step.launch("group_norm", [chunks, groups, 1], parameters);
}

/** Where a step's output goes in 16 bits, which it promises to write; null where others do, or nobody wants it so. */
function writtenNarrow(
  step: CudaStep,
): { type: NarrowType; address: number; keepsFloats: boolean } | null {
  const shared = step.rounded.rowsWrittenBy(step.index);
  if (shared?.taken.kind !== "narrow") return null;
  shared.isMade = true;
  const { taken: { type }, keepsFloats } = shared;
  return { type, address: step.rounded.addressOf(shared), keepsFloats };
}

/** The output, or where attention reads it in 16 bits. */
function headsPlace(
  step: CudaStep,
  output: MatrixView,
): { kernel: KernelName; place: number; stride: number } {
  const heads = step.rounded.headsWrittenBy(step.index);
  if (!heads || !step.products.dnn?.prepare(heads.problem)) {
    return { kernel: "head_norm_rope", place: output.address, stride: output.stride };
  }
  const { columns, firstRows, problem: { type } } = heads;
  const first = firstRows.get(step.index)! * columns * OPERAND_BYTES[type];
  const place = step.rounded.addressOf(heads) + first;
  return { kernel: `head_norm_rope_${type}`, place, stride: columns };
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
  const { kernel, place, stride } = headsPlace(step, output);
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
