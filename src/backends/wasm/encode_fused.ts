/** Encoders of norm, attention and headNormRope. */

import { NORM_KINDS, UNARY_KINDS } from "../../ops/op_table.ts";
import type { StepEncoder } from "./encode.ts";
import { invalid } from "../operand_view.ts";
import { attentionBias } from "../step_checks.ts";
import { float, TAPE_OPCODE } from "./tape_writer.ts";

/** Chunks group norm sums its rows in: enough to share, few enough to add up again. */
const GROUP_CHUNKS = 64;
const GROUP_CHUNK_ROWS = 16;
/** The widest head whose blocks fit a worker's scratch; kernels-wasm/src/attention.rs, MAX_SIZE. */
const MAX_HEAD_SIZE = 768;

/** norm: kind, rows, columns, groups, epsilon, activation, x, output, weight, bias, scale, shift, partials. */
export function encodeNorm(encoder: StepEncoder): void {
  if (encoder.step.op !== "norm") return;
  const { kind, epsilon, groups, activation } = encoder.step.attributes;
  const output = encoder.outputMatrix();
  const { rows, columns } = output;
  const chunkRows = Math.max(Math.ceil(rows / GROUP_CHUNKS), GROUP_CHUNK_ROWS);
  const chunks = Math.ceil(rows / chunkRows);
  const isGroup = kind === "group";
  if (isGroup && columns % groups !== 0) throw invalid("groups do not divide", { columns, groups });
  const parameters = [
    NORM_KINDS.indexOf(kind),
    rows,
    columns,
    groups,
    float(epsilon),
    UNARY_KINDS.indexOf(activation),
    ...encoder.rows(0, rows, columns),
    output.address,
    output.stride,
    encoder.vector(1, columns),
    encoder.vector(2, columns),
    ...encoder.rows(3, rows, columns),
    ...encoder.rows(4, rows, columns),
    isGroup ? encoder.scratch(chunks * groups * 16) : 0,
    chunkRows,
    chunks,
  ];
  if (!isGroup) return encoder.emit(parameters);
  encoder.emit(parameters, TAPE_OPCODE.groupSums);
  encoder.emit(parameters, TAPE_OPCODE.groupApply);
}

/** attention: queries, keys, heads, size, scale, causal, int8, q, k, v, output, bias and its strides. */
export function encodeAttention(encoder: StepEncoder): void {
  if (encoder.step.op !== "attention") return;
  const { heads, scale, causal, qkDtype } = encoder.step.attributes;
  const output = encoder.outputMatrix();
  const k = encoder.matrix(1);
  const size = output.columns / heads;
  if (!Number.isInteger(size) || size > MAX_HEAD_SIZE || k.columns !== output.columns) {
    throw invalid("attention heads", { columns: output.columns, heads, largest: MAX_HEAD_SIZE });
  }
  encoder.emit([
    output.rows,
    k.rows,
    heads,
    size,
    float(scale),
    causal ? 1 : 0,
    qkDtype === "int8" ? 1 : 0,
    ...encoder.rows(0, output.rows, output.columns),
    k.address,
    k.stride,
    ...encoder.rows(2, k.rows, output.columns),
    output.address,
    output.stride,
    ...attentionBias(encoder, [heads, output.rows, k.rows]),
  ]);
}

/** headNormRope: rows, heads, size, epsilon, x, output, weight, cos, sin. */
export function encodeHeadNormRope(encoder: StepEncoder): void {
  if (encoder.step.op !== "headNormRope") return;
  const { heads, epsilon } = encoder.step.attributes;
  const output = encoder.outputMatrix();
  const size = output.columns / heads;
  if (!Number.isInteger(size)) throw invalid("heads do not divide", { output, heads });
  encoder.emit([
    output.rows,
    heads,
    size,
    float(epsilon),
    ...encoder.rows(0, output.rows, output.columns),
    output.address,
    output.stride,
    encoder.vector(1, size),
    ...encoder.rows(2, output.rows, size),
    ...encoder.rows(3, output.rows, size),
  ]);
}
