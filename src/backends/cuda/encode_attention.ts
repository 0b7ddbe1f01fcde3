/** Encodes attention: by cuDNN where precision and library allow, by a kernel of our own otherwise. */

import { HalftoneError } from "../../errors.ts";
import { invalid, type MatrixView, repeatRows } from "../operand_view.ts";
import { attentionBias } from "../step_checks.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { KernelName } from "./kernel_names.ts";
import { address, float, integers, rows } from "./parameters.ts";
import {
  floatRows,
  launchEnd,
  launchNarrow,
  type NarrowType,
  type PlainRows,
  scratchRows,
} from "./plain_rows.ts";
import { plainEnd } from "./product_end.ts";

/** The attention kernels by the widest head they take, with the queries of a block. */
const ATTENTION_KERNELS: readonly {
  readonly kernel: KernelName;
  readonly size: number;
  readonly queries: number;
}[] = [
  { kernel: "attention_64", size: 64, queries: 64 },
  { kernel: "attention_128", size: 128, queries: 64 },
  { kernel: "attention_1024", size: 1024, queries: 16 },
];

interface Attention {
  readonly q: MatrixView;
  readonly k: MatrixView;
  readonly v: MatrixView;
  readonly output: MatrixView;
}

/** attention: q and output [queries, heads * size], k and v [keys, heads * size]. */
export function encodeAttention(step: CudaStep): void {
  if (step.step.op !== "attention") return;
  const { heads, scale, causal, qkDtype } = step.step.attributes;
  if (qkDtype !== undefined) throw refused(qkDtype);
  const output = step.outputMatrix();
  const k = step.matrix(1);
  const size = output.columns / heads;
  const kernel = ATTENTION_KERNELS.find((candidate) => size <= candidate.size);
  if (!Number.isInteger(size) || !kernel || k.columns !== output.columns) {
    throw invalid("attention heads", { columns: output.columns, heads, largest: 1024 });
  }
  const q = repeatRows(step.matrix(0), output.rows);
  const v = repeatRows(step.matrix(2), k.rows);
  if (q.columns !== output.columns || v.columns !== output.columns) {
    throw invalid("attention operands have another width", { q, v, output });
  }
  if (attendByLibrary(step, { q, k, v, output })) return;
  const bias = attentionBias(step, [heads, output.rows, k.rows]);
  step.launch(kernel.kernel, [Math.ceil(output.rows / kernel.queries), heads, 1], [
    ...[q, k, v].flatMap((matrix) => rows([matrix.address, matrix.stride])),
    address(output.address),
    address(bias[0]),
    ...integers(output.rows, k.rows, size, output.stride, bias[1], bias[2], causal ? 1 : 0),
    float(scale),
  ]);
  const kept = step.rounded.rowsWritten(step.index);
  if (kept) launchEnd(step, floatRows(output), plainEnd(kept));
}

function refused(dtype: string): HalftoneError {
  return new HalftoneError("unsupported", `Cannot run attention in ${dtype} on cuda`, {
    field: "attention",
    remedy: 'Leave out attention: "int8", or use the wasm backend',
  });
}

/** In 16 bits: operands narrowed unless they are made so, the result widened unless it is wanted so. False where the library does not do it. */
function attendByLibrary(step: CudaStep, { q, k, v, output }: Attention): boolean {
  const { rounded } = step;
  const problem = rounded.attentionOf(step.index);
  if (problem === null) return false;
  const { type } = problem;
  const operands = [q, k, v].map((wide, operand) => {
    const isMade = rounded.isReadNarrow(step.index, operand);
    const made = isMade ? rounded.rowsRead(step.index, operand) : place(step, wide, type);
    return { wide, isMade, address: made?.address ?? 0 };
  });
  const kept = rounded.rowsWritten(step.index);
  const result = kept ?? scratchRows(step, [output.rows, output.columns], type);
  const workspace = step.scratch(problem.workspaceBytes);
  const prepared = step.products.dnn!.prepare(problem);
  if (!prepared) return false;
  for (const { wide, isMade, address } of operands) {
    if (!isMade) launchNarrow(step, wide, address, type);
  }
  const places = operands.map(({ address }) => address) as [number, number, number];
  step.launchDnn(prepared, { operands: [...places, result.address], workspace });
  if (!kept) launchEnd(step, result, plainEnd(floatRows(output)));
  return true;
}

function place(step: CudaStep, { rows, columns }: MatrixView, type: NarrowType): PlainRows {
  return scratchRows(step, [rows, columns], type);
}
