/** Encodes attention: by cuDNN where precision and library allow, by a kernel of our own otherwise. */

import { HalftoneError } from "../../errors.ts";
import { invalid, type MatrixView, repeatRows } from "../operand_view.ts";
import { attentionBias } from "../step_checks.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { AttentionProblem } from "./dnn_problem.ts";
import type { KernelName } from "./kernel_names.ts";
import { workspaceBytes as workspaceBytesOf } from "./library_product.ts";
import { operandType } from "./matmul_precision.ts";
import { address, float, integers, rows } from "./parameters.ts";
import { launchEnd, launchNarrow, type NarrowType, scratchRows } from "./plain_rows.ts";
import { plainEnd } from "./product_end.ts";

/** What cuDNN's heads are multiples of. */
const HEAD_UNIT = 8;

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
  readonly heads: number;
  readonly size: number;
  readonly scale: number;
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
  const attention = { heads, size, scale, q, k, v, output };
  const isPlain = !causal && !step.has(3) && k.rows > 0;
  if (isPlain && attendByLibrary(step, attention)) return;
  const bias = attentionBias(step, [heads, output.rows, k.rows]);
  step.launch(kernel.kernel, [Math.ceil(output.rows / kernel.queries), heads, 1], [
    ...[q, k, v].flatMap((matrix) => rows([matrix.address, matrix.stride])),
    address(output.address),
    address(bias[0]),
    ...integers(output.rows, k.rows, size, output.stride, bias[1], bias[2], causal ? 1 : 0),
    float(scale),
  ]);
}

function refused(dtype: string): HalftoneError {
  return new HalftoneError("unsupported", `Cannot run attention in ${dtype} on cuda`, {
    field: "attention",
    remedy: 'Leave out attention: "int8", or use the wasm backend',
  });
}

/** In 16 bits: operands narrowed, the result widened. False where the library does not do it. */
function attendByLibrary(step: CudaStep, attention: Attention): boolean {
  const { precision, dnn } = step.products;
  const type = operandType(precision);
  if (type === "float32" || !dnn?.hasAttention || attention.size % HEAD_UNIT !== 0) return false;
  const { q, k, v, output } = attention;
  const narrow = [q, k, v, output].map(({ rows, columns }) =>
    scratchRows(step, [rows, columns], type)
  );
  const workspaceBytes = workspaceBytesOf(4 * output.rows * output.columns);
  const workspace = step.scratch(workspaceBytes);
  const prepared = dnn.prepare(problemOf(attention, type, workspaceBytes));
  if (!prepared) return false;
  const operands = narrow.map((matrix) => matrix.address) as [number, number, number, number];
  [q, k, v].forEach((matrix, index) => launchNarrow(step, matrix, operands[index]!, type));
  step.launchDnn(prepared, { operands, workspace });
  launchEnd(step, narrow[3]!, plainEnd(output));
  return true;
}

function problemOf(
  { heads, size, scale, q, k }: Attention,
  type: NarrowType,
  workspaceBytes: number,
): AttentionProblem {
  const shape = { heads, size, queries: q.rows, keys: k.rows };
  return { kind: "attention", type, ...shape, scale, workspaceBytes };
}
